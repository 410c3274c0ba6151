//! Bundles that no honest clone makes: each is refused, says why, and leaves nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use agent_loop::forge::Sha;
use agent_loop::git::{TakeLimits, Taken};
use agent_loop_tests::needs;

use super::world::{Room, Succeeded as _, program, sha};

/// Takes what lies where the keeper puts it; it has to be refused.
async fn refused(room: &Room, since: &Sha, what: &str) -> String {
    match room.take_file(&room.bundle(), since, TakeLimits::default()).await {
        Ok(Taken::Refused(why)) => {
            room.nothing_is_left();
            why
        }
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_bundle_is_refused() {
    needs!(root);
    let room = Room::open().await;
    let given = room.prepare().await;
    let head = room.agent.commit("fix.txt", "fixed\n");
    room.draw(&given).expect_success();
    let good = fs::read(room.bundle()).expect("it was written");
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("garbage", vec![0xa5; 100_000]),
        ("text without end", b"# v2 git bundle\n".repeat(10_000)),
        ("a script", b"#!/bin/sh\nid\n\n".to_vec()),
    ] {
        fs::write(room.bundle(), bytes).expect("a scratch file");
        refused(&room, &given, what).await;
    }
    // Truncated anywhere, and with any byte changed.
    for cut in (0..good.len()).step_by(1 + good.len() / 24) {
        fs::write(room.bundle(), &good[..cut]).expect("a scratch file");
        refused(&room, &given, &format!("cut at {cut}")).await;
    }
    for at in (0..good.len()).step_by(1 + good.len() / 24) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x41;
        fs::write(room.bundle(), bytes).expect("a scratch file");
        let taken = room.take_file(&room.bundle(), &given, TakeLimits::default()).await.expect("this host works");
        assert!(matches!(taken, Taken::Refused(_)), "changed at {at}: {taken:?}");
    }
    assert!(!room.holds(head.as_str()), "nothing of it came in");
    fs::write(room.bundle(), good).expect("a scratch file");
    let taken = room.take_file(&room.bundle(), &given, TakeLimits::default()).await.expect("this host works");
    assert_eq!(taken, Taken::Upto { head, commits: 1 }, "and the good one is good");
}

#[tokio::test]
async fn what_is_no_regular_file_is_refused_and_holds_nobody_up() {
    needs!(root);
    let room = Room::open().await;
    let given = room.prepare().await;
    room.agent.commit("fix.txt", "fixed\n");
    room.draw(&given).expect_success();
    let real = room.scratch.path().join("real.bundle");
    fs::rename(room.bundle(), &real).expect("a scratch file");
    symlink(&real, room.bundle()).expect("a link");
    refused(&room, &given, "a link").await;
    fs::remove_file(room.bundle()).expect("it is there");
    nix::unistd::mkfifo(&room.bundle(), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    refused(&room, &given, "a FIFO").await;
    fs::remove_file(room.bundle()).expect("it is there");
    fs::create_dir(room.bundle()).expect("a directory");
    refused(&room, &given, "a directory").await;
    fs::remove_dir(room.bundle()).expect("it is there");
    let _socket = std::os::unix::net::UnixListener::bind(room.bundle()).expect("a socket");
    refused(&room, &given, "a socket").await;
    assert!(
        room.take_file("/dev/zero".as_ref(), &given, TakeLimits::default())
            .await
            .is_ok_and(|taken| matches!(taken, Taken::Refused(_)))
    );
    assert!(
        room.take_file("/nonexistent".as_ref(), &given, TakeLimits::default()).await.is_err(),
        "no bundle, no answer"
    );
}

/// Makes a bundle of what a script does in the clone, by the agent's own git.
fn bundle_of(room: &Room, script: &str, args: &str) {
    room.agent.sh(script);
    room.agent.sh(&format!("git bundle create --quiet ../made.bundle {args}"));
    fs::rename(room.agent.home().join("made.bundle"), room.bundle()).expect("we are root");
}

#[tokio::test]
async fn a_bundle_of_more_or_other_refs_is_refused() {
    needs!(root);
    let room = Room::open().await;
    let given = room.prepare().await;
    let head = room.agent.commit("fix.txt", "fixed\n");
    for (what, script, args) in [
        ("two branches", "git branch -f other HEAD", "issue-1-fix other"),
        ("a replace ref", "git replace -f HEAD HEAD~1", "refs/heads/issue-1-fix refs/replace/*"),
        ("a tag of the name", "git tag -f issue-1-fix2 && git branch -f keep", "refs/tags/issue-1-fix2"),
        ("HEAD", "true", "HEAD"),
        ("the forge's ref", "git update-ref refs/forge/main/+ HEAD", "refs/forge/main/+"),
        ("all", "true", "--all"),
    ] {
        let args = args.replace("refs/replace/*", "--glob=refs/replace/*");
        bundle_of(&room, script, &args);
        refused(&room, &given, what).await;
    }
    // Another commit is told than is in it.
    bundle_of(&room, "true", "refs/heads/issue-1-fix");
    let bytes = fs::read(room.bundle()).expect("it was written");
    let text = "b".repeat(40);
    let at = bytes.windows(40).position(|it| it == head.as_str().as_bytes()).expect("its head");
    let changed = [&bytes[..at], text.as_bytes(), &bytes[at + 40..]].concat();
    fs::write(room.bundle(), changed).expect("a scratch file");
    refused(&room, &given, "a commit that is not in it").await;
    // A tree under the branch's name.
    let tree = room.agent.must(&["rev-parse", "HEAD^{tree}"]);
    let changed = [&bytes[..at], tree.as_bytes(), &bytes[at + 40..]].concat();
    fs::write(room.bundle(), changed).expect("a scratch file");
    refused(&room, &given, "a tree").await;
}

/// A commit on the branch whose tree has one odd entry, made below git's own checks.
fn odd_tree(room: &Room, mode: &str, name: &str, content: &str) -> Sha {
    fs::write(room.agent.home().join("content"), content).expect("a scratch file");
    let blob = room.agent.must(&["hash-object", "-w", "../content"]);
    let digits = data_encoding::HEXLOWER.decode(blob.as_bytes()).expect("an id");
    let raw = [format!("{mode} {name}\0").as_bytes(), &digits].concat();
    fs::write(room.agent.home().join("tree"), raw).expect("a scratch file");
    let tree = room.agent.must(&["hash-object", "-t", "tree", "-w", "--literally", "../tree"]);
    let commit = room.agent.must(&["commit-tree", "-p", "HEAD", "-m", "odd", &tree]);
    room.agent.must(&["update-ref", "refs/heads/issue-1-fix", &commit]);
    sha(&commit)
}

#[tokio::test]
async fn a_tree_that_could_be_checked_out_into_harm_is_refused() {
    needs!(root);
    let room = Room::open().await;
    let given = room.prepare().await;
    for (mode, name, content) in [
        ("100644", ".git", "gitdir: elsewhere"),
        ("100644", ".GIT", "gitdir: elsewhere"),
        ("100644", "git~1", "gitdir: elsewhere"),
        ("100644", "..", "x"),
        ("100644", ".", "x"),
        ("100644", "a/b", "x"),
        ("120000", ".gitmodules", "elsewhere"),
        ("100644", ".gitmodules", "[submodule \"x\"]\n\tpath = x\n\turl = -u./payload\n"),
        ("100644", ".gitmodules", "[submodule \"../../x\"]\n\tpath = x\n\turl = https://example.com/x\n"),
        ("100644", ".gitmodules", "[submodule \"x\"]\n\tpath = x\n\turl = https://e.com/x\n\tupdate = !id\n"),
    ] {
        let head = odd_tree(&room, mode, name, content);
        room.draw(&given).expect_success();
        let why = refused(&room, &given, name).await;
        assert!(why.contains("unsound"), "{name}: {why}");
        assert!(!room.holds(head.as_str()), "{name}");
        room.agent.must(&["update-ref", "refs/heads/issue-1-fix", given.as_str()]);
    }
    // The same way of making a commit, with nothing odd.
    let head = odd_tree(&room, "100644", "plain.txt", "x");
    assert_eq!(room.take(&given).await.expect("this host works"), Taken::Upto { head, commits: 1 });
}

#[tokio::test]
async fn a_history_with_holes_is_refused() {
    needs!(root);
    let room = Room::open().await;
    let given = room.prepare().await;
    room.agent.commit("one.txt", "one\n");
    let middle = room.agent.commit("two.txt", "two\n");
    room.agent.commit("three.txt", "three\n");
    // A bundle that leaves out what it says the reader has.
    bundle_of(&room, "true", &format!("refs/heads/issue-1-fix ^{middle}"));
    let why = refused(&room, &given, "a hole").await;
    assert!(why.contains("unsound"), "{why}");
    // A graft that hides one, and a shallow clone that has none.
    bundle_of(
        &room,
        &format!("mkdir -p .git/info; git rev-parse HEAD > .git/info/grafts; echo {middle} > .git/shallow"),
        "refs/heads/issue-1-fix",
    );
    refused(&room, &given, "a graft").await;
}

#[tokio::test]
async fn a_bundle_that_is_small_and_unpacks_to_much_is_refused() {
    needs!(root);
    let room = Room::open().await;
    let given = room.prepare().await;
    // 48 MiB of one letter are some 50 KB in a pack.
    room.agent.sh("head -c 50331648 /dev/zero | tr '\\0' x > bomb.txt; git add bomb.txt; git commit --quiet -m bomb");
    room.draw(&given).expect_success();
    let head = sha(&room.agent.must(&["rev-parse", "HEAD"]));
    let length = fs::metadata(room.bundle()).expect("it was written").len();
    assert!(length < 1 << 20, "{length} bytes");
    let limits = TakeLimits { unpacked: 48 << 20, ..TakeLimits::default() };
    let taken = room.take_file(&room.bundle(), &given, limits).await.expect("this host works");
    let Taken::Refused(why) = taken else { panic!("{taken:?}") };
    assert!(why.contains("once unpacked, more than 50331648 are let in"), "{why}");
    room.nothing_is_left();
    assert!(!room.holds(head.as_str()), "nothing of it came in");
    let limits = TakeLimits { unpacked: 49 << 20, ..TakeLimits::default() };
    let taken = room.take_file(&room.bundle(), &given, limits).await.expect("this host works");
    assert_eq!(taken, Taken::Upto { head, commits: 1 });
}

/// Whatever of an agent's work costs git more than it is given: the same would come of it whenever it is tried again, so
/// it is refused, and is no error of this host.
#[tokio::test]
async fn work_at_which_git_comes_to_its_limits_is_refused_at_whatever_step_that_is() {
    needs!(root);
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let (git, at) = (scratch.path().join("git"), scratch.path().join("at"));
    // Ended as the kernel ends it at its limit of processor time, or by its limit of memory, where a test says so.
    let script = format!(
        "#!/bin/sh\nread -r step how < {at}\ncase \" $* \" in *\" $step \"*)\n\
         if [ -n \"$GIT_OBJECT_DIRECTORY\" ]; then\n\
         [ \"$how\" = memory ] && {{ echo 'fatal: Out of memory, malloc failed' >&2; exit 128; }}\n\
         [ \"$how\" = disk ] && {{ echo 'fatal: write error: No space left on device' >&2; exit 128; }}\n\
         kill -\"$how\" $$\nfi;; esac\nexec {git} \"$@\"\n",
        at = at.display(),
        git = program("git").display()
    );
    fs::write(&at, "nothing\n").expect("a scratch file");
    fs::write(&git, script).expect("a scratch file");
    fs::set_permissions(&git, fs::Permissions::from_mode(0o755)).expect("our file");
    let room = Room::with_git(&git).await;
    let given = room.prepare().await;
    let head = room.agent.commit("fix.txt", "fixed\n");
    room.draw(&given).expect_success();
    let take = async |how: &str| {
        fs::write(&at, how).expect("a scratch file");
        room.take_file(&room.bundle(), &given, TakeLimits::default()).await
    };
    let steps = ["index-pack", "--batch-all-objects", "-e", "--objects", "merge-base", "--count"];
    for step in steps {
        for how in ["XCPU", "KILL", "SEGV"] {
            let taken = take(&format!("{step} {how}\n")).await;
            let Ok(Taken::Refused(why)) = taken else { panic!("{step}, {how}: {taken:?}") };
            assert!(why.contains("ended by a signal"), "{step}, {how}: {why}");
            room.nothing_is_left();
        }
        // A commit that is not there is told by an exit code as well.
        if step != "-e" {
            let taken = take(&format!("{step} memory\n")).await;
            assert!(matches!(&taken, Ok(Taken::Refused(why)) if why.contains("Out of memory")), "{step}: {taken:?}");
            // A full disk of ours is nobody's work.
            let taken = take(&format!("{step} disk\n")).await;
            assert!(matches!(&taken, Err(error) if error.to_string().contains("No space")), "{step}: {taken:?}");
        }
    }
    assert!(!room.holds(head.as_str()), "nothing of it came in");
    assert_eq!(take("nothing\n").await.expect("this host works"), Taken::Upto { head, commits: 1 });
}
