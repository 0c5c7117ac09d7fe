//! Tests of tokenizers against the reference implementation.

mod kinds;
mod reference;
