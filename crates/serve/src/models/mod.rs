//! The models that are served.
//!
//! | module | in → out |
//! | --- | --- |
//! | [`task`] | the tasks that models can have |
//! | [`served`] | a folder → an open model with its tasks |
//! | [`registry`] | names → open models; loading, replacing, removing |

pub mod registry;
pub mod served;
pub mod task;

pub use registry::{Registry, Spec, Watch};
pub use served::Served;
pub use task::Task;
