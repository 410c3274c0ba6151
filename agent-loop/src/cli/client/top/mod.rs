//! `agent-loop top`: the daemon at a glance, on a terminal, kept up to date.
//!
//! Inside: the terminal, the keys, when the daemon is asked. `screen` and `picture` are pure: what is shown, and how.

mod picture;
mod screen;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Args as ClapArgs;
use jiff::Timestamp;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use self::screen::{Key, Look, Screen, Wish};
use super::events::Lines;
use super::output::page;
use super::{Common, Failure};
use crate::control::api::QueueView;
use crate::control::client::{Client, ClientError};
use crate::error;

/// Shows runs, issues, processes and events on the terminal, kept up to date; `q` ends it.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// How long between two looks.
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = humantime::parse_duration)]
    every: Duration,
    #[command(flatten)]
    common: Common,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop top
  agent-loop top --every 5s
  NO_COLOR=1 agent-loop top        # without colours

Keys: up and down (or k and j) choose a run, whose processes are shown; home and end its first and
last; a shows runs that are over as well; q ends. Nothing is stopped or changed from here:
`agent-loop kill` does that. `agent-loop status`, `ps`, `queue` and `tree` print the same once.";

/// A person sees no more in a second.
const SOONEST: Duration = Duration::from_millis(100);

pub(super) async fn run(args: Args) -> Result<u8, Failure> {
    if args.common.json {
        return Err(Failure::Usage("top is for a terminal: `status --json` and `ps --json` say the same".to_owned()));
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "top needs a terminal; `agent-loop status` and `ps` print the same once".to_owned(),
        ));
    }
    let mut terminal = ratatui::try_init()?;
    // The terminal is given back whatever comes, also by a panic.
    let done = show(&mut terminal, &args).await;
    ratatui::try_restore()?;
    done
}

async fn show(terminal: &mut ratatui::DefaultTerminal, args: &Args) -> Result<u8, Failure> {
    let client = args.common.client();
    let mut keys = keys();
    let (tell, mut told) = mpsc::channel(256);
    let mut following = tokio::spawn(follow(client.clone(), tell.clone()));
    let (mut end, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let mut ticks = interval(args.every.max(SOONEST));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut screen = Screen::default();
    let colour = page().colour;
    loop {
        let mut looks = false;
        tokio::select! {
            _ = ticks.tick() => looks = true,
            key = keys.recv() => match key {
                Some(Some(key)) => match screen.press(key) {
                    Some(Wish::Quit) => return Ok(error::DONE),
                    Some(Wish::Look) => looks = true,
                    None => {}
                },
                // The terminal was resized.
                Some(None) => {}
                // It is gone.
                None => return Ok(error::DONE),
            },
            Some(line) = told.recv() => {
                screen.event(line);
                while let Ok(line) = told.try_recv() {
                    screen.event(line);
                }
            }
            _ = end.recv() => return Ok(error::DONE),
            _ = hangup.recv() => return Ok(error::DONE),
        }
        if looks {
            let look = look(&client, &screen).await.map_err(|why| why.to_string());
            if look.is_ok() && following.is_finished() {
                following = tokio::spawn(follow(client.clone(), tell.clone()));
            }
            screen.take(look);
        }
        terminal.draw(|frame| picture::draw(frame, &screen, Timestamp::now(), colour))?;
    }
}

/// Asks for all that is shown.
async fn look(client: &Client, screen: &Screen) -> Result<Look, ClientError> {
    let status = client.status().await?;
    let runs = client.runs(screen.all).await?.runs;
    // Without an issue loop there is no queue.
    let queue = match client.queue().await {
        Ok(queue) => queue,
        Err(ClientError::Answered { .. }) => QueueView::default(),
        Err(why) => return Err(why),
    };
    let chosen = runs.iter().find(|run| Some(run.run.as_str()) == screen.chosen()).or(runs.first());
    let tree = match chosen.filter(|run| run.state != "ended") {
        // It may be over by now.
        Some(run) => client.tree(&run.run).await.ok(),
        None => None,
    };
    Ok(Look { status, runs, queue, tree })
}

/// Hands on the lines of the log until the daemon hangs up.
async fn follow(client: Client, tell: mpsc::Sender<String>) {
    let Ok(pieces) = client.events(true).await else { return };
    let mut lines = Lines::of(pieces);
    while let Ok(Some(whole)) = lines.next().await {
        for line in whole.lines() {
            if tell.send(line.to_owned()).await.is_err() {
                return;
            }
        }
    }
}

/// The keys that are pressed, by a thread that waits for them; `None` where only the size changed.
fn keys() -> mpsc::Receiver<Option<Key>> {
    let (tell, told) = mpsc::channel(64);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            let key = match event {
                Event::Key(key) if key.kind != KeyEventKind::Release => match meaning(key) {
                    Some(key) => Some(key),
                    None => continue,
                },
                Event::Resize(..) => None,
                Event::Key(_) | Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_) => continue,
            };
            if tell.blocking_send(key).is_err() {
                return;
            }
        }
    });
    told
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all keys that mean nothing here")]
fn meaning(key: KeyEvent) -> Option<Key> {
    Some(match key.code {
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
        KeyCode::Char('k') | KeyCode::Up => Key::Up,
        KeyCode::Char('j') | KeyCode::Down => Key::Down,
        KeyCode::Home | KeyCode::Char('g') => Key::First,
        KeyCode::End | KeyCode::Char('G') => Key::Last,
        KeyCode::Char('a') => Key::All,
        _ => return None,
    })
}
