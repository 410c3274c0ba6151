//! The daemon's own bare repository for one repository of a forge (I23).
//!
//! ```text
//!            fetch                give                     clone (as the agent)
//!   forge -----------> Repository ------> bundle file ------------------------> the agent's clone
//!         <----------- refs/forge/…          |  refresh                                |
//!            push      refs/agent-loop/…  <--+---- take <---- bundle file <------------+  bundle create (as the agent)
//! ```
//! - [`Repository`] is what we run git in: never a directory that an agent can write to; `process` is how
//! - [`clone_argv`] and its siblings are what is run as the agent, in its clone
//! - what comes out of a clone is a file of bytes: `bundle` reads its head, `take` judges what it holds
//! - `secret` hands git the token, in no argument, no environment and no file that has a name
//!
//! Not inside: the forge's API, a decision, a process of an agent. Called by the shell of the loop alone.

mod argv;
mod bundle;
mod error;
mod give;
mod process;
mod push;
mod repository;
mod secret;
mod take;

pub use argv::{Author, clone_argv, refresh_argv, remove_argv, take_argv, unlock_argv};
pub use error::GitError;
pub use push::Pushed;
pub use repository::{Patience, Repository};
pub use take::{TakeLimits, Taken};
