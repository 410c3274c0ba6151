//! A headless browser for tests, driven over WebDriver: what a page draws, asks for and complains about.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// Why there is no browser here; `None` where there is one.
#[must_use]
pub fn without_browser() -> Option<&'static str> {
    let has = |name: &str| {
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
    };
    (!has("chromium") || !has("chromedriver"))
        .then_some("chromium and chromedriver are not here (Debian: chromium, chromium-driver)")
}

/// A browser with an empty profile.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one with a window of this size, in pixels.
    #[must_use]
    pub fn start(width: u32, height: u32) -> Self {
        let profile = tempfile::tempdir().expect("a profile");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starting chromedriver");
        let mut said = BufReader::new(driver.stdout.take().expect("its output"));
        let mut line = String::new();
        let port = loop {
            line.clear();
            assert!(said.read_line(&mut line).expect("reading its output") > 0, "chromedriver ended");
            let after = line.split("started successfully on port ").nth(1);
            if let Some(port) = after.and_then(|port| port.trim().trim_end_matches('.').parse().ok()) {
                break port;
            }
        };
        // Nobody reads on: it has nothing else to say, and must not wait for us if it has.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let mut browser = Self { driver, port, session: String::new(), _profile: profile };
        let profile = browser._profile.path().display().to_string();
        let args = json!([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            format!("--user-data-dir={profile}"),
            format!("--window-size={width},{height}")
        ]);
        let wanted = json!({ "capabilities": { "alwaysMatch": { "browserName": "chrome",
            "goog:chromeOptions": { "args": args }, "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" } } } });
        let session = browser.ask("POST", "/session", &wanted);
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        browser
    }

    /// Makes the browser say that its person prefers this colour scheme.
    pub fn scheme(&mut self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.post("goog/cdp/execute", &json!({ "cmd": "Emulation.setEmulatedMedia", "params": features }));
    }

    /// Opens a file and forgets what was asked for before; returns its address.
    pub fn open(&mut self, page: &Path) -> String {
        self.log("performance");
        self.log("browser");
        let url = format!("file://{}", page.display());
        self.post("url", &json!({ "url": url }));
        url
    }

    /// Keeps a picture of the whole page for people, in the directory that `AGENT_LOOP_SHOTS` names, if it names one.
    pub fn keep_picture(&mut self, name: &str) {
        let Some(dir) = std::env::var_os("AGENT_LOOP_SHOTS") else { return };
        let params = json!({ "format": "png", "captureBeyondViewport": true });
        let shot = self.post("goog/cdp/execute", &json!({ "cmd": "Page.captureScreenshot", "params": params }));
        let png = data_encoding::BASE64.decode(shot["data"].as_str().unwrap_or_default().as_bytes()).expect("base 64");
        std::fs::write(Path::new(&dir).join(format!("{name}.png")), png).expect("writing a picture");
    }

    /// The page's title.
    #[must_use]
    pub fn title(&mut self) -> String {
        self.script("return document.title").as_str().unwrap_or_default().to_owned()
    }

    /// What a script of the test finds in the page.
    pub fn script(&mut self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The addresses that the page asked for, itself first.
    pub fn requests(&mut self) -> Vec<String> {
        let message = |entry: &Value| -> Option<String> {
            let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let sent = message["message"]["method"] == "Network.requestWillBeSent";
            sent.then(|| message["message"]["params"]["request"]["url"].as_str().unwrap_or("?").to_owned())
        };
        self.log("performance").iter().filter_map(message).collect()
    }

    /// What the browser's console says of the page.
    pub fn complaints(&mut self) -> Vec<Value> {
        self.log("browser")
    }

    fn log(&mut self, name: &str) -> Vec<Value> {
        self.post("se/log", &json!({ "type": name })).as_array().cloned().unwrap_or_default()
    }

    fn post(&mut self, what: &str, body: &Value) -> Value {
        let path = format!("/session/{}/{what}", self.session);
        self.ask("POST", &path, body)
    }

    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Value {
        self.try_ask(method, path, body).unwrap_or_else(|why| panic!("{method} {path}: {why}"))
    }

    fn try_ask(&mut self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let text = body.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(|error| error.to_string())?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{text}",
            self.port,
            text.len()
        );
        stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        let mut stream = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while stream.read_line(&mut line).map_err(|error| error.to_string())? > 2 {
            let head = line.to_ascii_lowercase();
            if let Some(value) = head.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(|_| format!("a strange length: {line}"))?;
            }
            line.clear();
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        match answer["value"].get("error") {
            Some(error) => Err(format!("{error}: {}", answer["value"]["message"])),
            None => Ok(answer["value"].clone()),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser with its session.
        let path = format!("/session/{}", self.session);
        let _ = self.try_ask("DELETE", &path, &json!({}));
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
