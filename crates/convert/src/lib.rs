//! Models from and to other formats.
#![deny(missing_docs)]
