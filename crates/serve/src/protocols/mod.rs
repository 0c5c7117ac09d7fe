//! The protocols: each file has the routes, payloads and answers of one family of clients.
//!
//! | module | clients |
//! | --- | --- |
//! | [`tei`] | text-embeddings-inference: `/embed`, `/predict`, `/rerank`, … |
//! | [`openai`] | OpenAI: `/v1/embeddings`, `/v1/models` |
//! | [`rerank`] | Cohere, Jina, infinity, vLLM: `/v1/rerank`, `/v2/rerank`, `/score` |
//! | [`infinity`] | infinity: `/classify`, `/models` |
//! | [`hugging_face`] | Hugging Face's InferenceClient: `/models/NAME`, by task |
//! | [`attention`] | the page's attention viewer, as a task of [`hugging_face`] |
//! | [`kserve`] | KServe's Open Inference Protocol: `/v2/…` |
//! | [`health`] | Kubernetes, SageMaker: `/healthz`, `/ping`, … |
//! | [`cloud`] | SageMaker: `/invocations`; Vertex: `/vertex` |
//!
//! [`inputs`] has what their payloads share; [`embeddings`], [`classes`] and [`pipelines`] compute what their answers share.

pub mod attention;
pub mod classes;
pub mod cloud;
pub mod embeddings;
pub mod health;
pub mod hugging_face;
pub mod infinity;
pub mod inputs;
pub mod kserve;
pub mod openai;
pub mod pipelines;
pub mod rerank;
pub mod tei;
