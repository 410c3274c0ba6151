//! What is run as an agent, what it is told, and what its output says. [pure, but for the reading of template files]
//!
//! ```text
//!   issue, purpose --prompt--> text on standard input      command --> argv
//!   output --stream--> Told;  exit, Told, now --judge--> work::RunEnd
//! ```
//! - `command`: the preset `claude`, or any command with placeholders; `session` is the id that it is known by
//! - `prompt`: the templates, and how words of others are put into them: as data, fenced, cut, cleaned
//! - `stream`: what `claude --output-format stream-json` writes, read line by line
//! - `judge`, `limit`: what all that amounts to, and until when a limit of the provider lasts
//!
//! Not inside: a process, a forge, git, a clock. Called by the shell of the loop alone.

mod command;
mod judge;
mod limit;
mod prompt;
mod session;
mod stream;
mod words;

pub use command::{AgentCommand, CommandError, Preset, Values};
pub use judge::{Waits, judge};
pub use prompt::{Ask, FailedCheck, PromptError, Subject, Templates};
pub use session::{NotASession, SessionId};
pub use stream::{ApiError, Limit, Stream, Told};
