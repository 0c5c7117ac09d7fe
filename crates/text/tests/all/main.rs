//! Tokenizers beside the reference implementation.

mod kinds;
mod reference;
