pub mod heir;
pub mod listener;
pub mod policy;
pub mod respond;
pub mod route;
pub mod store;
