//! Sends requests and sorts answers.
//!
//! ```text
//! read   wait for a place -> limit over? -> send, with the tag of what is kept -> 304: what is kept
//!          ^ 5xx, nothing: again after a while      401: the token anew, once     403, 429: wait if short, else told
//! write  one at a time, a second apart -> limit over? -> send once -> 401: the token anew, once (it was not done)
//!                                                   5xx, nothing, unreadable: doubt
//! ```

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, HeaderValue, IF_NONE_MATCH, LOCATION};
use hyper::{HeaderMap, Method, Uri};
use octocrab::Octocrab;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::sync::{Mutex as Turn, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::etag::{Etags, Kept};
use super::{Login, Options, OptionsError, Patience, headers, nonsense, token};
use crate::forge::{At, Doubt, DoubtWhy, ForgeError, LimitKind, Limits, WriteError};

/// The most bytes of an answer.
const LARGEST: usize = 32 << 20;
/// The most pages of a list: 100,000 things.
const PAGES: usize = 1_000;
/// Reads at the same time; GitHub asks for few.
const READS: usize = 4;
/// How often one read waits for a limit to be over.
const LIMITS: u32 = 3;
/// A token is not used in the last minutes of its life.
const MARGIN: Duration = Duration::from_secs(300);

/// What was answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// What an answer that is none of success says, fit to be told.
    pub(super) said: String,
}

/// Whether an answer that is kept will do where the forge says that it still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    Conditional,
    Anew,
}

/// No whole answer.
struct Broken {
    /// Whether the request may have arrived.
    sent: bool,
    why: String,
}

struct Held {
    token: SecretString,
    /// When it is to be replaced, where that is known.
    until: Option<Instant>,
}

#[derive(Default)]
struct Known {
    limits: Limits,
    paused: Option<(Instant, LimitKind, Option<At>)>,
    /// The forge's clock, and when it was read on ours.
    date: Option<(At, Instant)>,
}

pub(super) struct Transport {
    reads: Octocrab,
    writes: Octocrab,
    origin: String,
    prefix: String,
    login: Login,
    patience: Patience,
    held: Turn<Option<Held>>,
    etags: Mutex<Etags>,
    known: Mutex<Known>,
    places: Semaphore,
    /// When the last write was over.
    last_write: Turn<Option<Instant>>,
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Transport {
    pub(super) fn new(options: &Options) -> Result<Self, OptionsError> {
        let (origin, prefix) = address(&options.api).ok_or_else(|| OptionsError::Api(options.api.clone()))?;
        match &options.login {
            Login::Token(file) => drop(token::from_file(file).map_err(OptionsError::Login)?),
            Login::App { app, key, .. } => drop(token::of_app(*app, key, At(0)).map_err(OptionsError::Login)?),
        }
        // Its `user-agent` is "octocrab": it appends, so that one of ours would be a second one.
        let client = |whole: Duration| {
            Octocrab::builder()
                .set_connect_timeout(Some(options.patience.connect))
                .set_read_timeout(Some(whole))
                .set_write_timeout(Some(whole))
                .build()
                .map_err(|error| OptionsError::Client(error.to_string()))
        };
        Ok(Self {
            reads: client(options.patience.read)?,
            writes: client(options.patience.write)?,
            origin,
            prefix,
            login: options.login.clone(),
            held: Turn::new(None),
            etags: Mutex::new(Etags::new(options.patience.kept)),
            patience: options.patience.clone(),
            known: Mutex::default(),
            places: Semaphore::new(READS),
            last_write: Turn::new(None),
        })
    }

    /// Scheme and host.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    pub(super) fn now(&self) -> Option<At> {
        let (date, then) = lock(&self.known).date?;
        Some(date.after(then.elapsed().as_secs()))
    }

    pub(super) fn limits(&self) -> Limits {
        let known = lock(&self.known);
        let paused = known.paused.map(|(until, ..)| until.saturating_duration_since(Instant::now()));
        Limits { paused: paused.filter(|left| !left.is_zero()), ..known.limits.clone() }
    }

    /// Reads one answer; an error status is an error.
    pub(super) async fn read(&self, doing: &str, path: &str, freshness: Freshness) -> Result<Answer, ForgeError> {
        let url = format!("{}{}{path}", self.origin, self.prefix);
        self.read_url(doing, &url, "application/vnd.github+json", freshness).await
    }

    /// Reads one answer of another media type.
    pub(super) async fn read_as(&self, doing: &str, path: &str, media: &str) -> Result<Answer, ForgeError> {
        let url = format!("{}{}{path}", self.origin, self.prefix);
        self.read_url(doing, &url, media, Freshness::Conditional).await
    }

    /// Reads every page of a list; one that cannot be read fails them all.
    pub(super) async fn pages(&self, doing: &str, path: &str) -> Result<Vec<Bytes>, ForgeError> {
        let mut url = format!("{}{}{path}", self.origin, self.prefix);
        let (mut pages, mut seen) = (Vec::new(), BTreeSet::new());
        loop {
            if pages.len() == PAGES || !seen.insert(url.clone()) {
                return Err(nonsense(doing, &"a list without an end"));
            }
            let answer = self.read_url(doing, &url, "application/vnd.github+json", Freshness::Conditional).await?;
            pages.push(answer.body);
            let Some(next) = headers::next(&answer.headers) else { return Ok(pages) };
            // The token goes to no other host, whatever an answer says.
            if !next.strip_prefix(&self.origin).is_some_and(|rest| rest.starts_with('/')) {
                return Err(nonsense(doing, &"its next page is on another host"));
            }
            url = next;
        }
    }

    async fn read_url(&self, doing: &str, url: &str, media: &str, freshness: Freshness) -> Result<Answer, ForgeError> {
        let _place = self.places.acquire().await.map_err(|_| unreachable(doing, "the client is closed"))?;
        let mut repeat = self.patience.repeat.iter();
        let (mut renewed, mut limits) = (false, 0);
        loop {
            self.wait_for_limit(doing).await?;
            let token = self.token(doing).await?;
            let key = format!("{media} {url}");
            let kept = match freshness {
                Freshness::Conditional => lock(&self.etags).get(&key),
                Freshness::Anew => None,
            };
            let mut extra = HeaderMap::new();
            if let Some(tag) = kept.as_ref().and_then(|kept| HeaderValue::from_str(&kept.tag).ok()) {
                extra.insert(IF_NONE_MATCH, tag);
            }
            if freshness == Freshness::Anew {
                extra.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            }
            let sent = self.send(&self.reads, Method::GET, url, media, extra, None, Some(&token)).await;
            let trouble = match sent {
                Ok(answer) if answer.status == 304 => {
                    if let Some(kept) = kept {
                        lock(&self.known).limits.not_modified += 1;
                        return Ok(of_kept(kept));
                    }
                    "304 without a condition".to_owned()
                }
                Ok(answer) if answer.status >= 500 => {
                    format!("{}: {}", answer.status, answer.said)
                }
                Ok(answer) if answer.status == 401 && !renewed => {
                    renewed = true;
                    self.renew(&token, doing, &answer).await?;
                    continue;
                }
                Ok(answer) if answer.status == 200 => {
                    self.keep(&key, &answer);
                    return Ok(answer);
                }
                Ok(answer) => match self.refusal(doing, &answer) {
                    Some(ForgeError::Limited { wait, .. }) if wait <= self.patience.limit && limits < LIMITS => {
                        limits += 1;
                        continue;
                    }
                    Some(error) => return Err(error),
                    None if matches!(answer.status, 200..=299 | 302) => return Ok(answer),
                    None => {
                        let (status, said) = (answer.status, answer.said);
                        return Err(ForgeError::Refused { doing: doing.to_owned(), status, said });
                    }
                },
                Err(broken) => token::scrub(&broken.why, Some(&token)),
            };
            match repeat.next() {
                Some(wait) => sleep(*wait).await,
                None => return Err(unreachable(doing, &trouble)),
            }
        }
    }

    /// Sends a write, once.
    pub(super) async fn write(
        &self,
        doing: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, WriteError> {
        let url = format!("{}{}{path}", self.origin, self.prefix);
        let mut last = self.last_write.lock().await;
        let mut renewed = false;
        loop {
            if let Some(last) = *last {
                sleep_until(last + self.patience.between_writes).await;
            }
            self.wait_for_limit(doing).await?;
            let token = self.token(doing).await?;
            let media = "application/vnd.github+json";
            let sent = self.send(&self.writes, method.clone(), &url, media, HeaderMap::new(), body, Some(&token)).await;
            *last = Some(Instant::now());
            lock(&self.known).limits.writes += 1;
            let doubt = |why| WriteError::Doubt(Doubt { doing: doing.to_owned(), why });
            return match sent {
                Ok(answer) if answer.status >= 500 || answer.status == 408 => {
                    Err(doubt(DoubtWhy::Status(answer.status)))
                }
                // A token that is not accepted has done nothing, so this is no repetition.
                Ok(answer) if answer.status == 401 && !renewed => {
                    renewed = true;
                    self.renew(&token, doing, &answer).await?;
                    continue;
                }
                Ok(answer) => match self.refusal(doing, &answer) {
                    Some(error) => Err(error.into()),
                    None => Ok(answer),
                },
                Err(broken) if broken.sent => Err(doubt(DoubtWhy::NoAnswer(token::scrub(&broken.why, Some(&token))))),
                Err(broken) => Err(unreachable(doing, &token::scrub(&broken.why, Some(&token))).into()),
            };
        }
    }

    /// Reads what a read points to on another host, without the token: the last `most` bytes of it.
    pub(super) async fn tail(&self, doing: &str, path: &str, most: usize) -> Result<Vec<u8>, ForgeError> {
        let answer = self.read(doing, path, Freshness::Anew).await?;
        if answer.status != 302 {
            return Err(nonsense(doing, &format_args!("{} instead of a place to read it at", answer.status)));
        }
        let place = answer.headers.get(LOCATION).and_then(|place| place.to_str().ok()).map(str::to_owned);
        let safe = |place: &String| {
            let Ok(uri) = place.parse::<Uri>() else { return false };
            uri.scheme_str() == Some("https") || self.origin.starts_with("http://") && is_loopback(&uri)
        };
        let Some(place) = place.filter(safe) else {
            return Err(nonsense(doing, &"the place to read it at is not safe"));
        };
        let read = async {
            let request = hyper::Request::get(&place).header(ACCEPT, "*/*").body(String::new())?;
            let response = self.reads.execute(request).await?;
            let status = response.status().as_u16();
            let mut body = response.into_body();
            let mut tail: Vec<u8> = Vec::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame?.into_data() else { continue };
                tail.extend_from_slice(&data);
                if tail.len() > most.saturating_mul(2).max(64 << 10) {
                    tail.drain(..tail.len() - most);
                }
            }
            tail.drain(..tail.len().saturating_sub(most));
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((status, tail))
        };
        // The place itself holds a secret of the forge's: it is not told.
        match timeout(self.patience.write, read).await {
            Ok(Ok((200, tail))) => Ok(tail),
            Ok(Ok((404 | 410, _))) => {
                Err(ForgeError::Gone { doing: doing.to_owned(), said: "it has expired".to_owned() })
            }
            Ok(Ok((status, _))) => Err(unreachable(doing, &format!("its store answered {status}"))),
            Ok(Err(_)) => Err(unreachable(doing, "reading it from its store failed")),
            Err(_) => Err(unreachable(doing, "reading it from its store took too long")),
        }
    }

    /// What an error status means; `None` for an answer that the caller judges.
    fn refusal(&self, doing: &str, answer: &Answer) -> Option<ForgeError> {
        let (doing, said) = (doing.to_owned(), answer.said.clone());
        if let Some((kind, wait)) = headers::limit(answer.status, &answer.headers, &said, self.now()) {
            let until = self.now().map(|now| now.after(wait.as_secs()));
            lock(&self.known).paused = Some((Instant::now() + wait, kind, until));
            return Some(ForgeError::Limited { doing, kind, wait, until });
        }
        Some(match answer.status {
            200..=299 | 302 | 405 | 409 => return None,
            301 | 307 | 308 => ForgeError::Moved { doing },
            401 => ForgeError::Token { doing, said },
            403 => ForgeError::NotPermitted { doing, said },
            404 | 410 => ForgeError::Gone { doing, said },
            status => ForgeError::Refused { doing, status, said },
        })
    }

    /// Waits for a limit to be over, or tells it where that is too long.
    async fn wait_for_limit(&self, doing: &str) -> Result<(), ForgeError> {
        let paused = lock(&self.known).paused;
        let Some((end, kind, until)) = paused else { return Ok(()) };
        let wait = end.saturating_duration_since(Instant::now());
        if wait > self.patience.limit {
            return Err(ForgeError::Limited { doing: doing.to_owned(), kind, wait, until });
        }
        sleep_until(end).await;
        lock(&self.known).paused.take_if(|(still, ..)| *still <= end);
        Ok(())
    }

    fn keep(&self, key: &str, answer: &Answer) {
        let tag = answer.headers.get("etag").and_then(|tag| tag.to_str().ok());
        let mut etags = lock(&self.etags);
        match tag {
            Some(tag) => {
                let next = headers::next(&answer.headers);
                etags.keep(key, Kept { tag: tag.to_owned(), body: answer.body.clone(), next });
            }
            None => etags.forget(key),
        }
    }

    /// The token, as held, read or asked for.
    pub(super) async fn token(&self, doing: &str) -> Result<SecretString, ForgeError> {
        let mut held = self.held.lock().await;
        if let Some(held) = &*held
            && held.until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(held.token.clone());
        }
        let fresh = self.fresh(doing).await?;
        let token = fresh.token.clone();
        *held = Some(fresh);
        Ok(token)
    }

    /// Replaces a token that was not accepted; an error where there is no other.
    async fn renew(&self, refused: &SecretString, doing: &str, answer: &Answer) -> Result<(), ForgeError> {
        let mut held = self.held.lock().await;
        // Somebody else may have replaced it meanwhile.
        if held.as_ref().is_some_and(|held| held.token.expose_secret() != refused.expose_secret()) {
            return Ok(());
        }
        *held = None;
        let fresh = self.fresh(doing).await?;
        if fresh.token.expose_secret() == refused.expose_secret() {
            return Err(ForgeError::Token { doing: doing.to_owned(), said: answer.said.clone() });
        }
        *held = Some(fresh);
        Ok(())
    }

    async fn fresh(&self, doing: &str) -> Result<Held, ForgeError> {
        let failed = |said| ForgeError::Token { doing: doing.to_owned(), said };
        match &self.login {
            Login::Token(file) => {
                let token = token::from_file(file).map_err(failed)?;
                Ok(Held { token, until: None })
            }
            Login::App { installation, .. } => {
                let path = format!("/app/installations/{installation}/access_tokens");
                let answer = self.as_app(doing, Method::POST, &path).await?;
                let told: super::wire::Token = super::wire::parse(doing, &answer.body)?;
                let left = told.expires.zip(self.now()).map(|(end, now)| Duration::from_secs(end.since(now)));
                let life = left.unwrap_or(Duration::from_secs(3_600)).saturating_sub(MARGIN);
                Ok(Held { token: told.token, until: Some(Instant::now() + life) })
            }
        }
    }

    /// Asks as the app itself, not as its installation. Asking for a token twice does no harm, so it is repeated.
    pub(super) async fn as_app(&self, doing: &str, method: Method, path: &str) -> Result<Answer, ForgeError> {
        let Login::App { app, key, .. } = &self.login else {
            return Err(ForgeError::Token { doing: doing.to_owned(), said: "we are not an app".to_owned() });
        };
        let url = format!("{}{}{path}", self.origin, self.prefix);
        let mut repeat = self.patience.repeat.iter();
        let mut told_the_time = false;
        loop {
            let ours = || At(jiff::Timestamp::now().as_second());
            let now = self.now().unwrap_or_else(ours);
            let word =
                token::of_app(*app, key, now).map_err(|said| ForgeError::Token { doing: doing.to_owned(), said })?;
            let media = "application/vnd.github+json";
            let sent = self.send(&self.reads, method.clone(), &url, media, HeaderMap::new(), None, Some(&word)).await;
            let trouble = match sent {
                Ok(answer) if answer.status >= 500 => format!("the forge answered {}", answer.status),
                // Our clock may be wrong: the answer has told the forge's.
                Ok(answer) if answer.status == 401 && !told_the_time => {
                    told_the_time = true;
                    continue;
                }
                Ok(answer) => match self.refusal(doing, &answer) {
                    Some(error) => return Err(error),
                    None => return Ok(answer),
                },
                Err(broken) => token::scrub(&broken.why, Some(&word)),
            };
            match repeat.next() {
                Some(wait) => sleep(*wait).await,
                None => return Err(unreachable(doing, &trouble)),
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a request, put together in this one place")]
    async fn send(
        &self,
        client: &Octocrab,
        method: Method,
        url: &str,
        media: &str,
        extra: HeaderMap,
        body: Option<&Value>,
        token: Option<&SecretString>,
    ) -> Result<Answer, Broken> {
        let unsent = |why: String| Broken { sent: false, why };
        let whole = if method == Method::GET { self.patience.read } else { self.patience.write };
        let builder = hyper::Request::builder().method(method).uri(url).header(ACCEPT, media);
        let mut request = client.build_request(builder, body).map_err(|error| unsent(chain(&error)))?;
        request.headers_mut().extend(extra);
        if let Some(token) = token {
            let value = format!("Bearer {}", token.expose_secret());
            let mut value = HeaderValue::from_str(&value).map_err(|_| unsent("the token is no header".to_owned()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        lock(&self.known).limits.requests += 1;
        let answer = timeout(whole, async {
            let response = client
                .execute(request)
                .await
                .map_err(|error| Broken { sent: !never_sent(&error), why: chain(&error) })?;
            let (parts, mut stream) = response.into_parts();
            let mut body = Vec::new();
            while let Some(frame) = stream.frame().await {
                let frame = frame.map_err(|error| Broken { sent: true, why: chain(&error) })?;
                let Ok(data) = frame.into_data() else { continue };
                if body.len() + data.len() > LARGEST {
                    return Err(Broken { sent: true, why: format!("it is larger than {LARGEST} bytes") });
                }
                body.extend_from_slice(&data);
            }
            let status = parts.status.as_u16();
            let said = if status < 300 { String::new() } else { said(&body, token) };
            Ok(Answer { status, headers: parts.headers, body: body.into(), said })
        });
        let answer = answer.await.unwrap_or_else(|_| {
            Err(Broken { sent: true, why: format!("no whole answer within {} s", whole.as_secs_f32()) })
        })?;
        let mut known = lock(&self.known);
        if let Some(date) = headers::date(&answer.headers) {
            known.date = Some((date, Instant::now()));
        }
        if let Some(hourly) = headers::hourly(&answer.headers) {
            known.limits.hourly = Some(hourly);
        }
        Ok(answer)
    }
}

fn of_kept(kept: Kept) -> Answer {
    let mut headers = HeaderMap::new();
    if let Some(next) = kept.next.and_then(|next| HeaderValue::from_str(&format!("<{next}>; rel=\"next\"")).ok()) {
        headers.insert("link", next);
    }
    Answer { status: 200, headers, body: kept.body, said: String::new() }
}

fn unreachable(doing: &str, why: &str) -> ForgeError {
    ForgeError::Unreachable { doing: doing.to_owned(), why: why.to_owned() }
}

/// The message of an error answer, and what it lists.
fn said(body: &[u8], token: Option<&SecretString>) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let mut said = value["message"].as_str().unwrap_or_default().to_owned();
    for error in value["errors"].as_array().into_iter().flatten() {
        let detail = error["message"].as_str().or_else(|| error["code"].as_str()).or_else(|| error.as_str());
        said = format!("{said} {}", detail.unwrap_or_default());
    }
    if said.is_empty() {
        said = String::from_utf8_lossy(body).into_owned();
    }
    token::scrub(&said, token)
}

/// An error with its causes, without the backtrace that octocrab's carries.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Whether no byte of the request can have arrived: there was no connection.
fn never_sent(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return error.is_connect();
        }
        next = error.source();
    }
    false
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|it| it.is_loopback())
}

/// Scheme with host, and path, of an API that a token may be sent to.
fn address(api: &str) -> Option<(String, String)> {
    let uri: Uri = api.trim_end_matches('/').parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
    let plain = uri.query().is_none() && !authority.contains('@');
    let safe = scheme == "https" || scheme == "http" && is_loopback(&uri);
    let path = uri.path().trim_end_matches('/');
    (plain && safe).then(|| (format!("{scheme}://{authority}"), path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_over_tls_or_to_loopback_alone() {
        let of = |api| address(api).map(|(origin, prefix)| format!("{origin} {prefix}"));
        assert_eq!(of("https://api.github.com").as_deref(), Some("https://api.github.com "));
        assert_eq!(of("https://git.example.com/api/v3/").as_deref(), Some("https://git.example.com /api/v3"));
        assert_eq!(of("http://127.0.0.1:8080/api/v3").as_deref(), Some("http://127.0.0.1:8080 /api/v3"));
        assert_eq!(of("http://[::1]:80").as_deref(), Some("http://[::1]:80 "));
        for bad in [
            "http://api.github.com",
            "http://127.0.0.1.evil.example",
            "https://user:pass@api.github.com",
            "https://api.github.com?x=1",
            "api.github.com",
            "ftp://api.github.com",
            "",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
