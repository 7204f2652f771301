//! The life of an agent: it is killed, ended, started, replaced and removed, and traffic does not notice.

mod crash;
mod owners;
mod stop;
mod unload;
