//! Where calls run: on the thread that serves the request, or on threads of their own.

mod lane;
mod pools;
mod worker_pool;

pub(in crate::extensions) use self::{
    lane::{FAST, Lane, Place},
    pools::WorkerPools,
    worker_pool::{Owner, Turn},
};
