//! A whole cluster: pods really run, and end in every way in which pods end; PostgreSQL is asked at each step whether it still
//! takes their credentials. It takes root.

mod departures;
mod ends;
mod gate;
mod harness;
mod helm;
mod installation;
mod plugin;
mod rights;
mod rollout;
mod world;
