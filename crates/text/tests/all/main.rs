//! Tests of tokenizers against the reference implementation.

mod families;
mod kinds;
mod reference;
