//! A daemon that is away for a moment, while it is upgraded or started again: runs go on without it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::control::client::ClientError;

/// How long it may be away.
const LONGEST: Duration = Duration::from_secs(60);

/// Between two looks whether it is back.
const PAUSE: Duration = Duration::from_millis(200);

/// Since when it is away.
#[derive(Debug, Default)]
pub(super) struct Away(Option<Instant>);

impl Away {
    /// It has answered.
    pub(super) const fn is_back(&mut self) {
        self.0 = None;
    }

    /// Waits a little, if this failure may pass and the daemon has not been away for too long.
    ///
    /// # Errors
    /// The failure itself, if it will not pass.
    pub(super) async fn wait(&mut self, why: ClientError) -> Result<(), ClientError> {
        let since = *self.0.get_or_insert_with(Instant::now);
        let passes = matches!(
            why,
            ClientError::NotRunning(_) | ClientError::Broken { .. } | ClientError::Answered { status: 503, .. }
        );
        if !passes || since.elapsed() > LONGEST {
            return Err(why);
        }
        sleep(PAUSE).await;
        Ok(())
    }
}
