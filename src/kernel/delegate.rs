//! What a type of an upper layer needs to travel as a value of this layer does.

pub(crate) use super::failure::BadArgument;
pub(crate) use super::param::{CallWriter, HostRef, Key, Words, sealed};
pub(crate) use super::reply::{BadReply, Receiving, Sending, Value};
