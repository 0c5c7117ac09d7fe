//! Communication between the processes ("ranks") of a job.
//!
//! | file | what it does |
//! | --- | --- |
//! | `collective.rs` | [`Collective`]: the operations that a transport provides |
//! | `communicator.rs` | [`Communicator`]: what callers use; gathers values, adds numbers in a fixed order |
//! | `root.rs` | what ranks do for rank 0, which writes: send it bytes, agree with it, wait for it |
//! | `tree.rs` | the order in which parts are added: it depends on their number, not on how ranks share them |
//! | `single.rs` | a job of one process |
//! | `launcher.rs` | who started this process: mpirun, mpiexec, srun |
//! | `mpi/` | MPI, found at run time, in either ABI: that of Open MPI or that of MPICH (Intel MPI, MVAPICH, Cray) |
//! | `cores.rs` | the share of a rank in the cores of its machine |
//!
//! No transport is implemented here: MPI carries the bytes. Communication that fails ends the process, and with it the
//! job, because MPI cannot continue after the loss of a rank: a job continues from its last checkpoint.

mod collective;
mod communicator;
mod cores;
mod error;
mod launcher;
#[cfg(unix)]
#[allow(unsafe_code)]
mod mpi;
mod root;
mod single;
mod tree;

pub use collective::Collective;
pub use communicator::{Communicator, ReduceBuffers, Reducible};
pub use cores::threads_of_rank;
pub use error::CommError;
pub use launcher::{Launch, Launcher};
pub use root::RootWork;
pub use single::Single;
pub use tree::{Tree, part};
