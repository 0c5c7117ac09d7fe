//! Operators that several modules build: activations, products with a weight and rows of a table.

use cloze_engine::ops::Activation;

use super::graph::{GraphBuilder, Matrix};
use super::proto::AttributeProto;

impl<'a> GraphBuilder<'a> {
    /// A node without attributes.
    pub(super) fn plain_node(&mut self, op_type: &str, name: String, inputs: &[&str]) -> String {
        self.node(op_type, name, inputs, Vec::new())
    }

    /// x·Wᵀ for a matrix `[out, in]`. The weight is stored as `[in, out]`, the constant operand of a plain MatMul. Fusions and
    /// quantizers support this form, and no transposition is necessary when the file is loaded.
    pub(super) fn product(&mut self, at: String, x: &str, weight: Matrix<'a>) -> String {
        if self.quantizes_product(&weight) {
            return self.integer_product(at, x, weight);
        }
        let weight = self.transposed(weight);
        self.plain_node("MatMul", at, &[x, &weight])
    }

    /// The rows of a table with these numbers.
    pub(super) fn lookup(&mut self, at: String, table: Matrix<'a>, numbers: &str) -> String {
        if self.quantizes() {
            return self.integer_lookup(at, table, numbers);
        }
        let table = self.untransposed(table);
        self.plain_node("Gather", at, &[&table, numbers])
    }

    /// γ (x − mean) / √(variance + ε) + β of the last axis; the values named by `parameters` are γ and, if there is one, β.
    pub(super) fn layer_norm(&mut self, at: String, x: &str, parameters: &[String], epsilon: f32) -> String {
        let mut inputs = vec![x];
        inputs.extend(parameters.iter().map(String::as_str));
        let attributes = vec![AttributeProto::int("axis", -1), AttributeProto::float("epsilon", epsilon)];
        self.node("LayerNormalization", at, &inputs, attributes)
    }

    /// f(x), as nodes whose names begin with `at`.
    pub(super) fn activation(&mut self, activation: Activation, at: &str, x: &str) -> String {
        let name = |part: &str| format!("{at}.{part}");
        match activation {
            Activation::None => x.to_owned(),
            Activation::Relu => self.plain_node("Relu", name("relu"), &[x]),
            Activation::Tanh => self.plain_node("Tanh", name("tanh"), &[x]),
            Activation::Silu => {
                let gate = self.plain_node("Sigmoid", name("gate"), &[x]);
                self.plain_node("Mul", name("silu"), &[x, &gate])
            }
            // x·(1 + erf(x / √2)) / 2
            Activation::Gelu => {
                let root = self.float("sqrt_2", std::f32::consts::SQRT_2);
                let one = self.float("one", 1.0);
                let half = self.float("half", 0.5);
                let scaled = self.plain_node("Div", name("scaled"), &[x, &root]);
                let erf = self.plain_node("Erf", name("erf"), &[&scaled]);
                let gate = self.plain_node("Add", name("gate"), &[&erf, &one]);
                let gated = self.plain_node("Mul", name("gated"), &[x, &gate]);
                self.plain_node("Mul", name("gelu"), &[&gated, &half])
            }
            // x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))
            Activation::GeluTanh => {
                let three = self.float("three", 3.0);
                let cubic = self.float("gelu_cubic", 0.044_715);
                let root = self.float("sqrt_2_over_pi", (2.0 / std::f64::consts::PI).sqrt() as f32);
                let one = self.float("one", 1.0);
                let half = self.float("half", 0.5);
                let halved = self.plain_node("Mul", name("halved"), &[x, &half]);
                let cube = self.plain_node("Pow", name("cube"), &[x, &three]);
                let cubed = self.plain_node("Mul", name("cubed"), &[&cube, &cubic]);
                let inner = self.plain_node("Add", name("inner"), &[x, &cubed]);
                let scaled = self.plain_node("Mul", name("scaled"), &[&inner, &root]);
                let tanh = self.plain_node("Tanh", name("tanh"), &[&scaled]);
                let gate = self.plain_node("Add", name("gate"), &[&tanh, &one]);
                self.plain_node("Mul", name("gelu"), &[&halved, &gate])
            }
        }
    }
}
