//! The engine's side of every case: the code that a user would write, with the default settings.

mod actor;
mod arrays;
mod graphs;
mod handover;
mod idle;
mod lanes;
mod maps;
mod memory;
mod mixed;
mod noop;
mod numbers;
mod protection;
mod service;
mod start;
mod streams;
mod trace;

use std::fmt::Display;

use super::BenchError;
use arenite::{Builder, Engine};

pub(super) use actor::{actor_call, cancel_scope};
pub(super) use arrays::{images, images_with, squares};
pub(super) use graphs::{graph_chain, graph_independent, graph_layers};
pub(super) use handover::handover;
pub(super) use idle::{idle_cpu, idle_memory};
pub(super) use lanes::calls_that_wait;
pub(super) use maps::{map_memory, map_of_small_arguments, noop_million};
pub(super) use memory::{cold_write, fresh_write};
pub(super) use mixed::{mixed, scale};
pub(super) use noop::{noop_beside_own, noop_hot, noop_idle, noop_map, noop_submit};
pub(super) use numbers::{kmeans, reduce, round};
pub(super) use protection::{in_place, noop_with, respawn};
pub(super) use service::service_call;
pub(super) use start::start;
pub(super) use streams::{stream, stream_memory};
pub(super) use trace::traced;

/// Starts an engine with default settings and this number of workers.
fn engine(workers: usize) -> Result<Engine, BenchError> {
    engine_with(workers, |builder| builder)
}

/// Starts an engine with a setting changed.
fn engine_with(workers: usize, change: fn(Builder) -> Builder) -> Result<Engine, BenchError> {
    let builder = Engine::builder().workers(workers);
    change(builder).build().map_err(refused)
}

/// Wraps an error of the engine.
fn refused(error: impl Display) -> BenchError {
    BenchError::Engine(error.to_string())
}
