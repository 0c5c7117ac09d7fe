//! One bidirectional layer of a long short-term memory (Hochreiter and Schmidhuber 1997; with forget gates, Gers et al.
//! 2000), over each sequence of a packed batch, as `torch.nn.LSTM(bidirectional=True)`. Two calls are two layers.
//!
//! For each direction, with the previous token in that direction t−1 and h₀ = c₀ = 0:
//! (a_i, a_f, a_g, a_o) = W_ih x_t + b_ih + W_hh h_{t−1} + b_hh; i, f, o = σ(a_i), σ(a_f), σ(a_o); g = tanh(a_g);
//! c_t = f c_{t−1} + i g; h_t = o tanh(c_t). y_t contains h_t of both directions side by side.
//!
//! Backward, from the last step to the first: dh_t = dy_t + W_hhᵀ da_{t+1}; dc_t = f_{t+1} dc_{t+1} + dh_t o (1 − tanh²c_t);
//! da_i = dc_t g i (1 − i); da_f = dc_t c_{t−1} f (1 − f); da_g = dc_t i (1 − g²); da_o = dh_t tanh(c_t) o (1 − o). Then
//! dx = da W_ih; dW_ih += daᵀ x; dW_hh += Σ da_t h_{t−1}ᵀ; db_ih += Σ da; db_hh += Σ da.

#[allow(unsafe_code)]
mod cpu;
#[allow(unsafe_code)]
mod cuda;

use crate::profile::Cost;
use crate::{Gradients, ParamId, Parameters, Pass, Tensor, Var};

/// The parameters of a layer: each is the stack (see [`ParametersBuilder::stack`](crate::ParametersBuilder::stack)) of
/// the forward and the reverse direction's. Every 4H rows of a direction are the gates i, f, g, o, as in PyTorch.
#[derive(Clone, Copy, Debug)]
pub struct BiLstm {
    /// W_ih, [8H, I]: `weight_ih_l0` and `weight_ih_l0_reverse` in PyTorch.
    pub weight_ih: ParamId,
    /// W_hh, [8H, H].
    pub weight_hh: ParamId,
    /// b_ih, \[8H\].
    pub bias_ih: ParamId,
    /// b_hh, \[8H\].
    pub bias_hh: ParamId,
}

impl BiLstm {
    /// H. Panics if the shapes of the parameters do not fit inputs of width `inner`.
    fn hidden(&self, params: &Parameters, inner: usize) -> usize {
        let [rows, hidden] = *params.shape(self.weight_hh) else { panic!("bilstm: a weight is a matrix") };
        let shapes = [self.weight_ih, self.bias_ih, self.bias_hh].map(|id| params.shape(id));
        let expected: [&[usize]; 3] = [&[rows, inner], &[rows], &[rows]];
        assert!(
            rows == 8 * hidden && shapes == expected,
            "bilstm: {shapes:?} and [{rows}, {hidden}], inputs of {inner}"
        );
        hidden
    }
}

/// What the backward pass needs of each token, in f32.
pub(crate) struct States {
    /// i, f, g, o of the forward, then of the reverse direction, [T, 8H].
    pub(crate) gates: Tensor,
    /// c of both directions, [T, 2H].
    pub(crate) cells: Tensor,
}

/// The inputs of the backward pass.
pub(crate) struct BiLstmBackward<'a> {
    pub(crate) x: &'a Tensor,
    pub(crate) cu_seqlens: &'a Tensor,
    pub(crate) y: &'a Tensor,
    pub(crate) states: States,
    pub(crate) dy: Tensor,
    pub(crate) prior: Option<Tensor>,
    pub(crate) needs_dx: bool,
    pub(crate) params: &'a Parameters,
    pub(crate) layer: BiLstm,
}

/// The kernels of both directions of differentiation.
pub(crate) trait Lstm {
    /// x [T, I] → y [T, 2H] and the states.
    fn bilstm(&self, x: &Tensor, cu_seqlens: &Tensor, params: &Parameters, layer: BiLstm) -> (Tensor, States);
    /// dy [T, 2H] → dx [T, I], added to the gradient `prior` if given; `None` if dx is not needed. Adds to the gradients
    /// of the parameters.
    fn bilstm_backward(&self, args: BiLstmBackward<'_>, grads: &mut Gradients) -> Option<Tensor>;
}

/// The outputs of both directions, [T, 2H], for `x` [T, I]. `cu_seqlens` [S + 1] contains the first token of each
/// sequence, then T; sequences must not be empty.
pub fn bilstm(pass: &mut Pass<'_>, x: &Var, cu_seqlens: &Tensor, layer: BiLstm) -> Var {
    let params = pass.parameters();
    let (value, states) = pass.device().backend().bilstm(x.value(), cu_seqlens, params, layer);
    let (x_value, x_slot, cu_seqlens, y) = (x.value().clone(), x.slot(), cu_seqlens.clone(), value.clone());
    let weights = params.size(layer.weight_ih) + params.size(layer.weight_hh);
    let products = 2 * x_value.shape()[0] * weights;
    let states_bytes = states.gates.bytes() + states.cells.bytes();
    let bytes = x_value.bytes() + value.bytes() + states_bytes + 4 * weights;
    pass.costs(Cost::new(products, bytes), Cost::new(2 * products, 2 * bytes));
    pass.uses(&[layer.weight_ih, layer.weight_hh, layer.bias_ih, layer.bias_hh]);
    pass.record("bilstm", value, |slot| {
        Box::new(move |backward| {
            let Some(dy) = backward.finish(slot) else { return };
            let prior = backward.take(x_slot);
            let args = BiLstmBackward {
                x: &x_value,
                cu_seqlens: &cu_seqlens,
                y: &y,
                states,
                dy,
                prior,
                needs_dx: x_slot.is_some(),
                params: backward.params,
                layer,
            };
            if let Some(dx) = backward.device.backend().bilstm_backward(args, backward.grads) {
                backward.add(x_slot, dx);
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Numbers, check_op, devices, run};
    use crate::{DType, Device, Init};

    fn cu_seqlens(lengths: &[usize]) -> Vec<i32> {
        std::iter::once(0)
            .chain(lengths.iter().scan(0, |end, n| {
                *end += *n as i32;
                Some(*end)
            }))
            .collect()
    }

    /// The layer's outputs in f64. `p` are W_ih, W_hh, b_ih and b_hh of both directions.
    fn oracle(x: &[f64], lengths: &[usize], p: &[Vec<f64>], [inner, hidden]: [usize; 2]) -> Vec<f64> {
        let sigmoid = |a: f64| 1.0 / (1.0 + (-a).exp());
        let mut y = vec![0.0; lengths.iter().sum::<usize>() * 2 * hidden];
        for (sequence, length) in cu_seqlens(lengths).iter().zip(lengths) {
            for direction in 0..2 {
                let (mut h, mut c) = (vec![0.0; hidden], vec![0.0; hidden]);
                for step in 0..*length {
                    let token = *sequence as usize + if direction == 0 { step } else { length - 1 - step };
                    let a = |gate: usize, unit: usize| {
                        let row = (4 * direction + gate) * hidden + unit;
                        let from_x: f64 = (0..inner).map(|k| p[0][row * inner + k] * x[token * inner + k]).sum();
                        let from_h: f64 = (0..hidden).map(|k| p[1][row * hidden + k] * h[k]).sum();
                        from_x + from_h + p[2][row] + p[3][row]
                    };
                    let next: Vec<[f64; 2]> = (0..hidden)
                        .map(|u| {
                            let c = sigmoid(a(1, u)) * c[u] + sigmoid(a(0, u)) * a(2, u).tanh();
                            [c, sigmoid(a(3, u)) * c.tanh()]
                        })
                        .collect();
                    (c, h) = next.iter().map(|[c, h]| (*c, *h)).unzip();
                    y[(2 * token + direction) * hidden..][..hidden].copy_from_slice(&h);
                }
            }
        }
        y
    }

    #[test]
    fn bilstm_matches_its_oracle() {
        for (lengths, inner, hidden) in
            [(vec![1], 1, 1), (vec![3, 1, 5], 4, 3), (vec![2, 6, 6, 1, 4], 9, 17), (vec![9, 3], 16, 40)]
        {
            let tokens = lengths.iter().sum();
            let ends = cu_seqlens(&lengths);
            let rows = 8 * hidden;
            check_op(
                &format!("bilstm {lengths:?} {inner}×{hidden}"),
                &[&[tokens, inner]],
                &[("ih", &[rows, inner]), ("hh", &[rows, hidden]), ("bih", &[rows]), ("bhh", &[rows])],
                |pass, x, p| {
                    let ends = pass.device().tensor_i32(&ends, &[ends.len()]);
                    let layer = BiLstm { weight_ih: p[0], weight_hh: p[1], bias_ih: p[2], bias_hh: p[3] };
                    bilstm(pass, &x[0], &ends, layer)
                },
                |x, p| oracle(&x[0], &lengths, p, [inner, hidden]),
            );
        }
    }

    #[test]
    fn results_do_not_depend_on_threads() {
        let (lengths, inner, hidden) = ([70, 3, 41, 41, 90], 24, 40);
        let (tokens, rows, ends) = (lengths.iter().sum::<usize>(), 8 * hidden, cu_seqlens(&lengths));
        let shapes: [(&str, &[usize]); 4] =
            [("ih", &[rows, inner]), ("hh", &[rows, hidden]), ("bih", &[rows]), ("bhh", &[rows])];
        let fill = |count: usize| (0..count).map(|i| 0.3 * (i as f64 * 0.7).sin()).collect::<Vec<f64>>();
        let params = shapes.iter().map(|(_, shape)| fill(shape.iter().product())).collect();
        let (numbers, seed) = (Numbers { inputs: vec![fill(tokens * inner)], params }, fill(tokens * 2 * hidden));
        let outcome = |device: &Device| {
            run(device, DType::F32, &[&[tokens, inner]], &shapes, &numbers, &seed, &|pass, x, p| {
                let ends = pass.device().tensor_i32(&ends, &[ends.len()]);
                let layer = BiLstm { weight_ih: p[0], weight_hh: p[1], bias_ih: p[2], bias_hh: p[3] };
                (Some(bilstm(pass, &x[0], &ends, layer)), None)
            })
        };
        let on_cpu = [1, 3].map(|threads| Some(Device::cpu(Some(threads)).expect("a CPU device")));
        for devices in [on_cpu, [false, true].map(Device::emulated_for_tests)] {
            let [Some(first), Some(second)] = devices else { continue };
            assert!(outcome(&first) == outcome(&second), "{first:?} and {second:?}");
        }
    }

    /// Two layers against torch.nn.LSTM. `fixtures/make.py` describes the data.
    #[test]
    fn two_layers_match_pytorch() {
        let record: serde_json::Value =
            serde_json::from_str(include_str!("../../../fixtures/lstm.json")).expect("JSON");
        let size = |key: &str| record[key].as_u64().expect("a size") as usize;
        let numbers = |value: &serde_json::Value| -> Vec<f32> {
            value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number") as f32).collect()
        };
        let (inner, hidden) = (size("inner"), size("hidden"));
        let lengths: Vec<usize> = numbers(&record["lengths"]).iter().map(|n| *n as usize).collect();
        let (tokens, ends) = (lengths.iter().sum(), cu_seqlens(&lengths));
        for device in devices() {
            let mut builder = crate::Parameters::builder();
            let mut layers = Vec::new();
            for (layer, inner) in [inner, 2 * hidden].into_iter().enumerate() {
                let mut stack = |name: &str, columns: Option<usize>| {
                    let shape: Vec<usize> = std::iter::once(4 * hidden).chain(columns).collect();
                    let parts = ["", "_reverse"].map(|direction| {
                        builder.declare(&format!("{name}_l{layer}{direction}"), &shape, Init::Zeros, columns.is_some())
                    });
                    builder.stack(&parts)
                };
                layers.push(BiLstm {
                    weight_ih: stack("weight_ih", Some(inner)),
                    weight_hh: stack("weight_hh", Some(hidden)),
                    bias_ih: stack("bias_ih", None),
                    bias_hh: stack("bias_hh", None),
                });
            }
            let mut params = builder.build(&device, 0);
            for id in params.ids() {
                let values = numbers(&record["parameters"][params.name(id)]);
                params.write(id, &values);
            }
            let mut grads = Gradients::zeros_like(&params);
            grads.zero();
            let mut pass = Pass::recording(&device, &params, &mut grads, DType::F32, None);
            let x = pass.input(device.tensor_f32(&numbers(&record["x"]), &[tokens, inner]));
            let ends = device.tensor_i32(&ends, &[ends.len()]);
            let first = bilstm(&mut pass, &x, &ends, layers[0]);
            let y = bilstm(&mut pass, &first, &ends, layers[1]);
            let found = y.value().to_vec_f32();
            let dy = device.tensor_f32(&numbers(&record["gradient_of_y"]), &[tokens, 2 * hidden]);
            pass.seed_gradient(&y, dy);
            let dx = pass.backward_to(&[&x])[0].as_ref().expect("a gradient").to_vec_f32();
            let compare = |name: &str, found: &[f32], expected: &serde_json::Value| {
                let expected = numbers(expected);
                assert_eq!(found.len(), expected.len(), "{name}");
                let gap = found.iter().zip(&expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
                assert!(gap < 3e-6, "{device:?}: {name} differs by {gap}");
            };
            compare("y", &found, &record["y"]);
            compare("the gradient of x", &dx, &record["gradient_of_x"]);
            for id in params.ids() {
                compare(params.name(id), &grads.read(id), &record["gradients"][params.name(id)]);
            }
        }
    }
}
