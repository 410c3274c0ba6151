//! The daemon's repository against a forge that remembers and against agents that mean harm: real git, an agent of another
//! user, and a listener that must hear nothing.

mod bundles;
mod hostile;
mod remote;
mod secret;
mod world;

use agent_loop::git::{Pushed, TakeLimits, Taken};
use agent_loop_tests::needs;

use world::{Room, branch, sha};

#[tokio::test]
async fn commits_of_an_agent_come_to_the_forge_and_nothing_else_does() {
    needs!(root);
    let room = Room::open().await;
    let given = room.prepare().await;
    let head = room.agent.commit("fix.txt", "fixed\n");
    let taken = room.take(&given).await.expect("this host works");
    assert_eq!(taken, Taken::Upto { head: head.clone(), commits: 1 });
    let pushed = room.push(&head, None).await.expect("the forge answers");
    assert_eq!(pushed, Pushed::Done);
    assert_eq!(room.fake.world().at("refs/heads/issue-1-fix"), Some(head.to_string()));
    assert_eq!(room.fetch("issue-1-fix").await.expect("it answers"), Some(head.clone()));
    assert_eq!(room.repository.contains(&head, &given).await.ok(), Some(true));
    assert_eq!(room.repository.contains(&given, &head).await.ok(), Some(false));
    room.nothing_is_left();

    // A second round, beyond what is there now, with the base brought in.
    let base = sha(&room.fake.world().push("main", "other.txt", "new\n"));
    assert_eq!(room.fetch("main").await.expect("it answers"), Some(base.clone()));
    room.refresh(&head, &base).await;
    room.agent.must(&["merge", "--quiet", "--no-edit", "origin/main"]);
    let merged = room.agent.commit("more.txt", "more\n");
    let taken = room.take(&head).await.expect("this host works");
    assert_eq!(taken, Taken::Upto { head: merged.clone(), commits: 2 }, "what the forge has does not count");
    assert_eq!(room.push(&merged, Some(&head)).await.expect("it answers"), Pushed::Done);
    assert_eq!(room.repository.contains(&merged, &base).await.ok(), Some(true));
    room.repository.tidy().await.expect("there is something to tidy");
    assert_eq!(room.repository.contains(&merged, &base).await.ok(), Some(true), "tidy loses nothing");
}

#[tokio::test]
async fn a_branch_that_is_not_there_is_none_and_one_named_like_its_part_is_in_nobodys_way() {
    needs!(root);
    let room = Room::open().await;
    assert_eq!(room.fetch("agents").await.expect("it answers"), None);
    let main = room.fetch("main").await.expect("it answers").expect("it is there");
    assert!(room.fake.world().create_ref("refs/heads/agents", main.as_str()));
    assert_eq!(room.fetch("agents").await.expect("it answers"), Some(main.clone()));
    assert!(room.fake.world().delete_ref("refs/heads/agents"));
    assert!(room.fake.world().create_ref("refs/heads/agents/1", main.as_str()));
    assert_eq!(room.fetch("agents/1").await.expect("a part of another"), Some(main.clone()));
    assert_eq!(room.fetch("agents").await.expect("it answers"), None, "what is gone is not remembered");
    // A branch that was rewritten on the forge is taken as it is now.
    let other = room.fake.world().commit_on(main.as_str(), "another history");
    assert!(room.fake.world().set_ref("refs/heads/agents/1", &other));
    assert_eq!(room.fetch("agents/1").await.expect("it answers"), Some(sha(&other)));
    assert!(room.fake.world().set_ref("refs/heads/agents/1", main.as_str()));
    assert_eq!(room.fetch("agents/1").await.expect("it answers"), Some(main));
}

#[tokio::test]
async fn a_branch_without_a_new_commit_is_nothing_and_a_rewritten_one_is_refused() {
    needs!(root);
    let room = Room::open().await;
    let given = room.prepare().await;
    assert_eq!(room.take(&given).await.expect("this host works"), Taken::Nothing);
    room.agent.must(&["commit", "--quiet", "--amend", "--message", "as if it were mine"]);
    let Taken::Refused(why) = room.take(&given).await.expect("this host works") else { panic!("it was rewritten") };
    assert!(why.contains("rewritten") || why.contains("history"), "{why}");
    room.agent.must(&["checkout", "--quiet", "--orphan", "another"]);
    room.agent.commit("x.txt", "x\n");
    room.agent.must(&["branch", "--force", "issue-1-fix", "another"]);
    let Taken::Refused(_) = room.take(&given).await.expect("this host works") else { panic!("another history") };
    room.nothing_is_left();
}

#[tokio::test]
async fn a_clone_is_emptied_by_its_agent_and_what_it_links_to_stays() {
    needs!(root);
    let room = Room::open().await;
    room.prepare().await;
    let kept = room.agent.home().join("kept");
    std::fs::write(&kept, "kept").expect("a scratch file");
    room.agent.sh("mkdir -p a/b && touch a/b/c ./-rf && ln -s ../../kept a/link && ln -s ../.. a/up && chmod 500 a/b");
    room.empty_clone();
    assert_eq!(std::fs::read_dir(room.agent.clone_dir()).expect("it is there").count(), 0);
    assert_eq!(std::fs::read_to_string(kept).ok().as_deref(), Some("kept"));
}

#[tokio::test]
async fn budgets_are_kept() {
    needs!(root);
    let room = Room::open().await;
    let given = room.prepare().await;
    for number in 0..4 {
        room.agent.commit("n.txt", &format!("{number}\n"));
    }
    let good = TakeLimits { bytes: 1 << 20, objects: 100, unpacked: 1 << 20, commits: 4 };
    for limits in [
        TakeLimits { commits: 3, ..good },
        TakeLimits { objects: 3, ..good },
        TakeLimits { bytes: 100, ..good },
        TakeLimits { unpacked: 100, ..good },
    ] {
        let taken = room.take_within(&given, limits).await.expect("this host works");
        assert!(matches!(taken, Taken::Refused(_)), "{limits:?}: {taken:?}");
        room.nothing_is_left();
    }
    let taken = room.take_within(&given, good).await.expect("this host works");
    assert!(matches!(taken, Taken::Upto { commits: 4, .. }), "{taken:?}");
    // A name that git would read as an option is no branch at all.
    for name in ["--upload-pack=id", "-q", "--output=x"] {
        assert!(name.parse::<agent_loop::forge::Branch>().is_err(), "{name}");
    }
    assert_eq!(branch("issue-1-fix").as_str(), "issue-1-fix");
}
