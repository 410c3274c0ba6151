//! Made-up secrets of every known shape, put together from parts so that no file holds one, and command lines with none.

/// Letters and digits that no service ever gave to anybody.
pub(super) fn filler(length: usize) -> String {
    const FROM: &[u8] = b"Fa7kE9xQ2mZ4vN8bT3wR6";
    (0..length).map(|at| char::from(FROM[(at * 5 + at / 7) % FROM.len()])).collect()
}

/// A secret by its shape alone, with the part of it that must never be seen.
pub(super) fn shapes() -> Vec<String> {
    let with = |prefix: &[&str], length: usize| format!("{}{}", prefix.concat(), filler(length));
    let mut all: Vec<String> = ["gh", "gh", "gh", "gh", "gh"]
        .iter()
        .zip(["p_", "o_", "u_", "s_", "r_"])
        .map(|(a, b)| with(&[a, b], 36))
        .collect();
    all.extend([
        with(&["github", "_pat_"], 60),
        with(&["gl", "pat-"], 20),
        with(&["sk-", "ant-", "api03-"], 80),
        with(&["sk-", "proj-"], 48),
        with(&["s", "k-"], 48),
        with(&["s", "k_live_"], 24),
        with(&["wh", "sec_"], 32),
        with(&["AK", "IA"], 16).to_ascii_uppercase(),
        with(&["xo", "xb-"], 40),
        with(&["xo", "xp-"], 40),
        with(&["n", "pm_"], 36),
        with(&["py", "pi-", "AgEI"], 60),
        with(&["AI", "za"], 35),
        with(&["h", "f_"], 34),
        with(&["hv", "s."], 40),
        format!("ey{}.ey{}.{}", with(&["J"], 20), with(&["J"], 30), filler(40)),
        format!("-----BEGIN RSA {} KEY-----\n{}\n{}\n-----END RSA {0} KEY-----", "PRIVATE", filler(64), filler(40)),
        format!("https://hooks.slack.{}/services/T{}/B{}/{}", "com", filler(9), filler(9), filler(24)),
        format!("https://{}.com/api/webhooks/123456789/{}", "discord", filler(60)),
    ]);
    all
}

/// Where an ordinary word is secret by what stands around it: before, after.
pub(super) const AROUND: &[(&str, &str)] = &[
    ("--password=", ""),
    ("API_TOKEN=", ""),
    ("https://me:", "@example.org/x"),
    ("postgres://me:", "@db/x"),
    ("Authorization: Bearer ", ""),
    ("Private-Token: ", ""),
    ("https://example.org/?access_token=", "&x=1"),
    ("{\"client_secret\": \"", "\"}"),
    ("//packages.example.org/:_authToken=", ""),
    ("sh -c 'curl -u me:", " https://example.org'"),
];

/// Command lines as agents run them, in which nothing is secret.
pub(super) const ORDINARY: &[&[&str]] = &[
    &["git", "status", "--porcelain=v2"],
    &["git", "commit", "-m", "auth: fix the login of the token bucket"],
    &["git", "clone", "ssh://git@example.org:2222/a/b.git"],
    &["git", "push", "origin", "HEAD:refs/heads/fix-token-refresh"],
    &["git", "-c", "credential.helper=store", "fetch", "--no-auto-gc"],
    &["git", "show", "0123456789abcdef0123456789abcdef01234567"],
    &["cargo", "test", "-p", "x", "--", "auth::token::parses_a_secret", "--exact"],
    &["cargo", "build", "--release", "--features", "token-cache"],
    &[
        "rustc",
        "--crate-name",
        "secrecy",
        "--edition=2021",
        "-C",
        "metadata=0123456789abcdef",
        "-L",
        "dependency=/x/deps",
    ],
    &["node", "--max-old-space-size=4096", "node_modules/.bin/jest", "src/password.test.ts"],
    &["npm", "install", "@scope/token-lib@1.2.3", "--registry", "http://localhost:4873/@scope"],
    &["claude", "-p", "fix the failing test of the password form", "--max-tokens", "4096"],
    &["sh", "-c", "for f in *.rs; do grep -n token \"$f\" | head -3; done; exit 0"],
    &["bash", "-lc", "export PATH=/usr/bin:$PATH && make -j4 check > out.log 2>&1"],
    &["sh", "-c", "TOKEN=$GITHUB_TOKEN ./deploy.sh --token \"$TOKEN\""],
    &["docker", "run", "-p", "8080:80", "--rm", "-v", "/tmp:/tmp", "alpine", "sleep", "1"],
    &["curl", "-fsSL", "https://example.org/install.sh", "-o", "/tmp/x"],
    &["ssh", "-i", "/srv/keys/id_ed25519", "git@example.org"],
    &["docker", "login", "--password-stdin", "-u", "me"],
    &["python3", "-c", "import sys; print(sys.argv)"],
    &["mkdir", "-p", "/srv/tasks/disk-risk-management-of-large-things"],
];
