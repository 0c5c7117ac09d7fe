use super::{BiLstm, BiLstmBackward, Lstm, States};
use crate::cpu::arena::{gradient_sums, gradients, weights};
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::gemm::{Mat, PackedB, Precision, Slice, product};
use crate::cpu::lanes::{self, Lanes, VectorElement, each_part, load, store};
use crate::cpu::level::{Isa, Vectorized};
use crate::cpu::sums::{Accumulate, StoreSum};
use crate::cpu::{Cpu, mat, mat_part, math, precision_of};
use crate::dtype::{Real, with_real};
use crate::gradients::Write;
use crate::ops::assert_segments;
use crate::{DType, Gradients, Parameters, Tensor};
use std::cmp::Reverse;
use std::ops::Range;

/// Rows of a step per task, each for one sequence and direction.
const ROWS: usize = 4;

impl Lstm for Cpu {
    fn bilstm(&self, x: &Tensor, cu_seqlens: &Tensor, params: &Parameters, layer: BiLstm) -> (Tensor, States) {
        let (tokens, inner) = x.matrix("bilstm");
        let hidden = layer.hidden(params, inner);
        let precision = precision_of(x.dtype());
        // The inputs' part of the gates, of all tokens and both directions in one product.
        let mut gates = Tensor::host(&[tokens, 8 * hidden], DType::F32);
        let weight_ih = Mat::new(Slice::F32(weights(params, layer.weight_ih)), 8 * hidden, inner, inner);
        let sum = DisjointSlice::new(gates.slice_mut());
        let all = Accumulate { sum, columns: 8 * hidden, write: Write::Store, non_temporal: true };
        product(self.level, &self.pool, precision, mat(x), weight_ih.t(), &all);

        let weight_hh = Recurrent::new(self, precision, params, layer, Mat::t);
        let [bias_ih, bias_hh] = [layer.bias_ih, layer.bias_hh].map(|bias| weights(params, bias));
        let bias: Vec<f32> = bias_ih.iter().zip(bias_hh).map(|(ih, hh)| ih + hh).collect();
        let steps = Steps::new(cu_seqlens, tokens);
        let mut cells = Tensor::host(&[tokens, 2 * hidden], DType::F32);
        let mut y = Tensor::host(&[tokens, 2 * hidden], x.dtype());
        // h of the previous step and W_hh h, of each sequence and direction.
        let mut state = vec![0f32; steps.sequences() * 2 * hidden];
        let mut recurrent = vec![0f32; steps.sequences() * 8 * hidden];
        let zeros = vec![0f32; hidden];
        with_real!(x.dtype(), E => {
            let [gates, cells] = [&mut gates, &mut cells].map(|tensor| DisjointSlice::new(tensor.slice_mut::<f32>()));
            let y = DisjointSlice::new(y.slice_mut::<E>());
            for step in 0..steps.count() {
                let active = steps.active(step);
                if step > 0 {
                    weight_hh.multiply(self, &state, active, &mut recurrent);
                }
                let state = DisjointSlice::new(&mut state);
                self.for_blocks(2 * active, ROWS, |rows| {
                    for (row, direction) in rows.map(|row| (row / 2, row % 2)) {
                        let token = steps.token(row, direction, step);
                        // SAFETY: each row belongs to one task, and only this task uses the row's tokens.
                        let (gates, cell, state, y) = unsafe {
                            (
                                gates.part(part(token, direction, 4 * hidden)),
                                cells.part(part(token, direction, hidden)),
                                state.part(part(row, direction, hidden)),
                                y.part(part(token, direction, hidden)),
                            )
                        };
                        let previous = match step {
                            0 => &zeros[..],
                            // SAFETY: as above.
                            _ => unsafe { cells.part(part(steps.token(row, direction, step - 1), direction, hidden)) },
                        };
                        let recurrent = &recurrent[part(row, direction, 4 * hidden)];
                        let bias = &bias[part(0, direction, 4 * hidden)];
                        self.level.run(Forward { gates, recurrent, bias, previous, cell, state, y });
                    }
                });
            }
        });
        (y, States { gates, cells })
    }

    fn bilstm_backward(&self, args: BiLstmBackward<'_>, grads: &mut Gradients) -> Option<Tensor> {
        let BiLstmBackward { x, cu_seqlens, y, states, dy, prior, needs_dx, params, layer } = args;
        let (tokens, inner) = x.matrix("bilstm_backward");
        let hidden = layer.hidden(params, inner);
        let precision = precision_of(x.dtype());
        let steps = Steps::new(cu_seqlens, tokens);
        let weight_hh = Recurrent::new(self, precision, params, layer, |matrix| matrix);
        let da = with_real!(x.dtype(), E => self.through_time(states, dy.slice::<E>(), &steps, &weight_hh));

        let mut bias_sums = vec![0f32; 8 * hidden];
        self.add_column_sums(&da, &mut bias_sums);
        for bias in [layer.bias_ih, layer.bias_hh] {
            let sums = gradient_sums(grads, params.range(bias));
            sums.iter_mut().zip(&bias_sums).for_each(|(sum, d)| *sum += d);
        }
        let range = params.range(layer.weight_ih);
        let write = grads.begin_write(range.clone());
        let sum = DisjointSlice::new(gradients(grads, range));
        let dw = Accumulate { sum, columns: inner, write, non_temporal: true };
        product(self.level, &self.pool, precision, mat(&da).t(), mat(x), &dw);

        let previous = with_real!(y.dtype(), E => previous_states::<E>(y, cu_seqlens));
        let range = params.range(layer.weight_hh);
        let write = grads.begin_write(range.clone());
        for (direction, sum) in gradients(grads, range).chunks_exact_mut(4 * hidden * hidden).enumerate() {
            let dw = Accumulate { sum: DisjointSlice::new(sum), columns: hidden, write, non_temporal: true };
            let da = mat_part(&da, 0..tokens, part(0, direction, 4 * hidden));
            let previous = mat_part(&previous, 0..tokens, part(0, direction, hidden));
            product(self.level, &self.pool, precision, da.t(), previous, &dw);
        }
        if !needs_dx {
            return None;
        }
        let weight_ih = Mat::new(Slice::F32(weights(params, layer.weight_ih)), 8 * hidden, inner, inner);
        let mut dx = Tensor::host(&[tokens, inner], x.dtype());
        with_real!(x.dtype(), E => {
            let prior = prior.as_ref().map(Tensor::slice::<E>);
            let epilogue = StoreSum { y: DisjointSlice::new(dx.slice_mut::<E>()), prior, columns: inner };
            product(self.level, &self.pool, precision, mat(&da), weight_ih, &epilogue);
        });
        Some(dx)
    }
}

impl Cpu {
    /// The gradients da [T, 8H] of the gates before their functions, in the memory of the gates.
    fn through_time<E: VectorElement>(
        &self,
        states: States,
        dy: &[E],
        steps: &Steps<'_>,
        weight_hh: &Recurrent<'_>,
    ) -> Tensor {
        let (_, columns) = states.cells.matrix("bilstm_backward");
        let (hidden, cells) = (columns / 2, states.cells.slice::<f32>());
        let mut all = states.gates.into_unique();
        let gates = DisjointSlice::new(all.slice_mut::<f32>());
        // da of the step, and its contributions to dh and dc of the previous one, of each sequence and direction.
        let mut da = vec![0f32; steps.sequences() * 8 * hidden];
        let [mut dh, mut dc] = [(); 2].map(|()| vec![0f32; steps.sequences() * 2 * hidden]);
        let zeros = vec![0f32; hidden];
        for step in (0..steps.count()).rev() {
            // The contributions of sequences that end with this step are still zero.
            weight_hh.multiply(self, &da, steps.active(step + 1), &mut dh);
            let [da, dc] = [&mut da, &mut dc].map(|rows| DisjointSlice::new(rows));
            self.for_blocks(2 * steps.active(step), ROWS, |rows| {
                for (row, direction) in rows.map(|row| (row / 2, row % 2)) {
                    let token = steps.token(row, direction, step);
                    // SAFETY: each row belongs to one task, and only this task uses the row's tokens.
                    let (gates, da, dc) = unsafe {
                        (
                            gates.part(part(token, direction, 4 * hidden)),
                            da.part(part(row, direction, 4 * hidden)),
                            dc.part(part(row, direction, hidden)),
                        )
                    };
                    let previous = match step {
                        0 => &zeros[..],
                        _ => &cells[part(steps.token(row, direction, step - 1), direction, hidden)],
                    };
                    let [cell, dh] = [&cells[part(token, direction, hidden)], &dh[part(row, direction, hidden)]];
                    let dy = &dy[part(token, direction, hidden)];
                    self.level.run(Backward { gates, cell, previous, dy, dh, dc, da });
                }
            });
        }
        all
    }
}

/// The range of one direction's numbers in a matrix that has `width` of them for each direction in each row.
fn part(row: usize, direction: usize, width: usize) -> Range<usize> {
    (2 * row + direction) * width..(2 * row + direction + 1) * width
}

/// The order of the recurrence: step t is the t-th token of each sequence in the direction. The sequences are sorted by
/// length, the longest first, so that those with a token in a step are the first rows of its matrices.
struct Steps<'a> {
    cu_seqlens: &'a [i32],
    order: Vec<usize>,
}

impl Steps<'_> {
    fn new(cu_seqlens: &Tensor, tokens: usize) -> Steps<'_> {
        let cu_seqlens = cu_seqlens.slice::<i32>();
        assert_segments("bilstm", cu_seqlens, tokens);
        let mut order: Vec<usize> = (0..cu_seqlens.len() - 1).collect();
        order.sort_by_key(|sequence| Reverse(cu_seqlens[sequence + 1] - cu_seqlens[*sequence]));
        Steps { cu_seqlens, order }
    }

    fn sequences(&self) -> usize {
        self.order.len()
    }

    fn tokens(&self, row: usize) -> Range<usize> {
        let sequence = self.order[row];
        self.cu_seqlens[sequence] as usize..self.cu_seqlens[sequence + 1] as usize
    }

    /// The number of steps: the length of the longest sequence.
    fn count(&self) -> usize {
        if self.order.is_empty() { 0 } else { self.tokens(0).len() }
    }

    /// The number of sequences that have a token in a step.
    fn active(&self, step: usize) -> usize {
        self.order
            .partition_point(|sequence| (self.cu_seqlens[sequence + 1] - self.cu_seqlens[*sequence]) as usize > step)
    }

    /// The token of a row in a step; direction 1 is the reverse one.
    fn token(&self, row: usize, direction: usize, step: usize) -> usize {
        let tokens = self.tokens(row);
        if direction == 0 { tokens.start + step } else { tokens.end - 1 - step }
    }
}

/// W_hh of each direction as an operand of many products, packed if the level does that.
struct Recurrent<'a> {
    precision: Precision,
    operands: [(Mat<'a>, Option<PackedB>); 2],
}

impl<'a> Recurrent<'a> {
    /// `view` returns the matrix or its transpose.
    fn new(
        cpu: &Cpu,
        precision: Precision,
        params: &'a Parameters,
        layer: BiLstm,
        view: impl Fn(Mat<'a>) -> Mat<'a>,
    ) -> Recurrent<'a> {
        let hidden = params.shape(layer.weight_hh)[1];
        let operands = [0, 1].map(|direction| {
            let values = &weights(params, layer.weight_hh)[part(0, direction, 4 * hidden * hidden)];
            let matrix = view(Mat::new(Slice::F32(values), 4 * hidden, hidden, hidden));
            let packs = precision == Precision::BF16;
            (matrix, packs.then(|| PackedB::bf16(cpu.level, &cpu.pool, matrix)).flatten())
        });
        Recurrent { precision, operands }
    }

    /// Multiplies the first `rows` rows of `a` by the matrix of each direction, and stores them in those of `to`.
    fn multiply(&self, cpu: &Cpu, a: &[f32], rows: usize, to: &mut [f32]) {
        for (direction, (matrix, packed)) in self.operands.iter().enumerate() {
            if rows == 0 {
                return;
            }
            let (inner, outer) = (matrix.rows(), matrix.cols());
            let a = Mat::new(Slice::F32(&a[direction * inner..]), rows, inner, 2 * inner);
            let sum = DisjointSlice::new(&mut to[direction * outer..]);
            let epilogue = Accumulate { sum, columns: 2 * outer, write: Write::Store, non_temporal: false };
            match packed {
                Some(packed) => packed.product(&cpu.pool, a, &epilogue),
                None => product(cpu.level, &cpu.pool, self.precision, a, *matrix, &epilogue),
            }
        }
    }
}

/// h_{t−1} for each token and direction, [T, 2H]: the rows of y, shifted within each sequence.
fn previous_states<E: Real>(y: &Tensor, cu_seqlens: &Tensor) -> Tensor {
    let (tokens, columns) = y.matrix("bilstm_backward");
    let (hidden, y) = (columns / 2, y.slice::<E>());
    let mut all = Tensor::host(&[tokens, columns], E::DTYPE);
    let previous = all.slice_mut::<E>();
    previous.fill(E::from_f32(0.0));
    for ends in cu_seqlens.slice::<i32>().windows(2) {
        for token in ends[0] as usize + 1..ends[1] as usize {
            previous[part(token, 0, hidden)].copy_from_slice(&y[part(token - 1, 0, hidden)]);
            previous[part(token - 1, 1, hidden)].copy_from_slice(&y[part(token, 1, hidden)]);
        }
    }
    all
}

/// One step of a sequence and direction.
struct Forward<'a, E> {
    /// W_ih x, replaced by i, f, g, o.
    gates: &'a mut [f32],
    /// W_hh h_{t−1}
    recurrent: &'a [f32],
    /// b_ih + b_hh
    bias: &'a [f32],
    /// c_{t−1}
    previous: &'a [f32],
    /// c_t
    cell: &'a mut [f32],
    /// h_t, in f32 and as the output.
    state: &'a mut [f32],
    y: &'a mut [E],
}

impl<E: VectorElement> Vectorized for Forward<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let Forward { gates, recurrent, bias, previous, cell, state, y } = self;
        let hidden = cell.len();
        for (gate, ((gates, recurrent), bias)) in gates
            .chunks_exact_mut(hidden)
            .zip(recurrent.chunks_exact(hidden))
            .zip(bias.chunks_exact(hidden))
            .enumerate()
        {
            each_part!(hidden, part => {
                let [x, h, b] = [load(&gates[part.clone()]), load(&recurrent[part.clone()]), load(&bias[part.clone()])];
                let a = lanes::zip3(x, h, b, |x, h, b| x + h + b);
                let value = if gate == 2 { lanes::map(a, math::tanh::<I>) } else { lanes::map(a, math::sigmoid::<I>) };
                store::<I, _>(value, &mut gates[part]);
            });
        }
        each_part!(hidden, part => {
            let [i, f, g, o] = four(gates, part.clone());
            let c = lanes::zip3(f, load(&previous[part.clone()]), lanes::zip(i, g, |i, g| i * g), |f, c, ig| f * c + ig);
            let h = lanes::zip(o, c, |o, c| o * math::tanh::<I>(c));
            store::<I, _>(c, &mut cell[part.clone()]);
            store::<I, _>(h, &mut state[part.clone()]);
            store::<I, _>(h, &mut y[part]);
        });
    }
}

/// The same range of each of the four gates.
#[inline(always)]
fn four(gates: &[f32], part: Range<usize>) -> [Lanes; 4] {
    let hidden = gates.len() / 4;
    [0, 1, 2, 3].map(|gate| load(&gates[gate * hidden + part.start..gate * hidden + part.end]))
}

/// The derivative of the logistic function where its value is `s`.
#[inline(always)]
fn slope(s: f32) -> f32 {
    s * (1.0 - s)
}

/// The backward pass of one step of a sequence and direction.
struct Backward<'a, E> {
    /// i, f, g, o, replaced by their gradients da.
    gates: &'a mut [f32],
    /// c_t
    cell: &'a [f32],
    /// c_{t−1}
    previous: &'a [f32],
    dy: &'a [E],
    /// The next step's contribution to dh_t.
    dh: &'a [f32],
    /// The next step's contribution to dc_t, replaced by this step's to dc_{t−1}.
    dc: &'a mut [f32],
    /// A copy of da, for the product with W_hh.
    da: &'a mut [f32],
}

impl<E: VectorElement> Vectorized for Backward<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let Backward { gates, cell, previous, dy, dh, dc, da } = self;
        let hidden = cell.len();
        each_part!(hidden, part => {
            let [i, f, g, o] = four(gates, part.clone());
            let dh = lanes::zip(load(&dy[part.clone()]), load(&dh[part.clone()]), |dy, dh| dy + dh);
            let t = lanes::map(load(&cell[part.clone()]), math::tanh::<I>);
            let through = lanes::zip3(dh, o, t, |dh, o, t| dh * o * (1.0 - t * t));
            let d = lanes::zip(load(&dc[part.clone()]), through, |dc, through| dc + through);
            let gradients = [
                lanes::zip3(d, g, i, |d, g, i| d * g * slope(i)),
                lanes::zip3(d, load(&previous[part.clone()]), f, |d, c, f| d * c * slope(f)),
                lanes::zip3(d, i, g, |d, i, g| d * i * (1.0 - g * g)),
                lanes::zip3(dh, t, o, |dh, t, o| dh * t * slope(o)),
            ];
            store::<I, _>(lanes::zip(d, f, |d, f| d * f), &mut dc[part.clone()]);
            for (gate, gradient) in gradients.into_iter().enumerate() {
                let at = gate * hidden + part.start..gate * hidden + part.end;
                store::<I, _>(gradient, &mut gates[at.clone()]);
                store::<I, _>(gradient, &mut da[at]);
            }
        });
    }
}
