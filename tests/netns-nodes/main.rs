//! Three nodes, each with its own agent, and the cloud around them: what no single node can show.

mod cce;
mod checks;
mod clusters;
mod delivery;
mod octavia;
mod policy;
mod publish;
