//! Where calls run: on the thread that serves the request, or on threads of their own.

mod lane;
mod order;
mod pools;
mod worker_pool;

pub(in crate::extensions) use self::{
    lane::{FAST, Lane, Place},
    order::{Owner, Probably},
    pools::WorkerPools,
    worker_pool::{Slot, Turn},
};
