//! The models that are served.
//!
//! | module | in → out |
//! | --- | --- |
//! | [`task`] | the tasks that models can have |
//! | [`served`] | a folder → an open model with its tasks |
//! | [`repository`] | a folder of models → the folder of one |
//! | [`registry`] | names → open models; loading, replacing, removing |

pub mod registry;
pub mod repository;
pub mod served;
pub mod task;

pub use registry::{Changes, Registry, Spec, Watch};
pub use repository::Repository;
pub use served::Served;
pub use task::Task;
