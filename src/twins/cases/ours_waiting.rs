//! Stands in for `ours` until the engine is there.

use super::handover::Read;
use super::{Running, Setup, TwinError};

fn waiting() -> Result<Running, TwinError> {
    Err(TwinError::Missing("the engine is not built yet".to_owned()))
}

pub(super) fn noop_hot(_: &Setup) -> Result<Running, TwinError> {
    waiting()
}
pub(super) fn noop_idle(_: &Setup) -> Result<Running, TwinError> {
    waiting()
}
pub(super) fn noop_map(_: &Setup) -> Result<Running, TwinError> {
    waiting()
}
pub(super) fn noop_submit(_: &Setup) -> Result<Running, TwinError> {
    waiting()
}
pub(super) fn handover(_: &Setup, _: &[u8], _: Read) -> Result<Running, TwinError> {
    waiting()
}
pub(super) fn images(_: &Setup, _: &[Vec<u8>]) -> Result<Running, TwinError> {
    waiting()
}
pub(super) fn squares(_: &Setup, _: &[i64]) -> Result<Running, TwinError> {
    waiting()
}
pub(super) fn start(_: &Setup) -> Result<Running, TwinError> {
    waiting()
}
pub(super) fn fresh_write(_: &Setup) -> Result<Running, TwinError> {
    waiting()
}
pub(super) fn cold_write(_: &Setup) -> Result<Running, TwinError> {
    waiting()
}
pub(super) fn mixed(_: &Setup, _: &[u64]) -> Result<Running, TwinError> {
    waiting()
}
pub(super) fn scale(_: usize) -> Result<Running, TwinError> {
    waiting()
}
pub(super) fn idle_cpu(_: &Setup) -> Result<Running, TwinError> {
    waiting()
}
pub(super) fn idle_memory(_: &Setup) -> Result<Running, TwinError> {
    waiting()
}
