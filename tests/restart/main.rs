//! The life of an agent: it is killed, stopped, started, replaced and removed, without an effect on traffic.

mod clsact;
mod crash;
mod driver;
mod owners;
mod stop;
mod unload;
mod upgrade;
