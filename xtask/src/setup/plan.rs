//! Decides on the next step of a setup, from facts alone.

use super::Toolchain;
use super::facts::{Apt, Compiler, Facts, LINKER_LLVM, LINKER_VERSION, Linker, OLDEST, llvm_packages};
use std::path::PathBuf;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing is missing.
    Ready(Toolchain),
    /// This, then look again.
    Do(Step),
    /// Nothing that we may do helps; the text says what a person can do.
    Stuck(String),
}

/// One thing to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Fetch the distribution's package lists.
    ListPackages,
    /// Install packages of the distribution.
    Packages {
        /// Their names.
        names: Vec<String>,
        /// What they are for.
        why: &'static str,
    },
    /// Build bpf-linker.
    BuildLinker {
        /// With this LLVM.
        llvm: u32,
        /// Which lies here.
        prefix: PathBuf,
    },
}

impl Step {
    /// What is done.
    pub(crate) fn what(&self) -> String {
        match self {
            Self::ListPackages => "apt-get update".to_owned(),
            Self::Packages { names, .. } => format!("apt-get install {}", names.join(" ")),
            Self::BuildLinker { llvm, .. } => format!("cargo install bpf-linker {LINKER_VERSION} with LLVM {llvm}"),
        }
    }

    /// Why.
    pub(crate) fn why(&self) -> String {
        match self {
            Self::ListPackages => "to learn which LLVM this distribution offers".to_owned(),
            Self::Packages { why, .. } => (*why).to_owned(),
            Self::BuildLinker { .. } => {
                "eBPF objects are linked by bpf-linker, which is not here or too old".to_owned()
            }
        }
    }
}

/// Decides on the next step.
pub(crate) fn next(facts: &Facts) -> Next {
    if !facts.cc {
        return packages(facts, &["gcc", "libc6-dev"], "a C compiler links every Rust program");
    }
    let usable: Vec<&Compiler> = facts.compilers.iter().filter(|it| it.source && it.version >= OLDEST).collect();
    if let Some(linker) = &facts.linker
        && let Some(compiler) = usable.iter().find(|it| fits(linker, it))
    {
        return Next::Ready(Toolchain { compiler: (*compiler).clone(), linker: linker.clone() });
    }
    for compiler in &usable {
        if let Some(step) = towards_a_linker(facts, compiler) {
            return step;
        }
    }
    if !usable.is_empty() && can_install(facts) && !facts.listed {
        return Next::Do(Step::ListPackages);
    }
    let has_pair = usable.iter().any(|it| it.origin == super::facts::Origin::Distribution);
    if !has_pair {
        let why = "a compiler with the source of its library: `core` is built for the kernel's target";
        return packages(facts, &["rustc-web", "rust-web-src"], why);
    }
    Next::Stuck(by_hand("no LLVM is offered that is as new as the compiler's"))
}

/// Whether `linker` reads what `compiler` writes: its LLVM must not be older.
fn fits(linker: &Linker, compiler: &Compiler) -> bool {
    linker.llvm.is_none_or(|llvm| llvm >= compiler.llvm)
}

fn can_install(facts: &Facts) -> bool {
    facts.root && facts.apt.is_some()
}

/// The step that brings a linker for `compiler` nearer, if there is one.
fn towards_a_linker(facts: &Facts, compiler: &Compiler) -> Option<Next> {
    const WHY: &str = "bpf-linker is built with an LLVM not older than the compiler's";
    let fitting = || LINKER_LLVM.into_iter().filter(|major| *major >= compiler.llvm);
    let here = |major: &u32| facts.llvms.iter().find(|it| it.major == *major);
    let missing = |apt: &Apt, major: u32| {
        let mut names: Vec<String> =
            llvm_packages(major).into_iter().filter(|name| !apt.installed.contains(name)).collect();
        if !facts.cxx {
            names.push("g++".to_owned());
        }
        names
    };
    let offered = |major: &u32| facts.apt.as_ref().is_some_and(|apt| apt.llvm.contains(major));

    let major = fitting().find(|it| here(it).is_some()).or_else(|| fitting().find(offered))?;
    let names = facts.apt.as_ref().filter(|_| offered(&major)).map(|apt| missing(apt, major)).unwrap_or_default();
    match here(&major) {
        // Without root the libraries beside LLVM may be missing; cargo will tell.
        Some(llvm) if names.is_empty() || !can_install(facts) => {
            Some(Next::Do(Step::BuildLinker { llvm: major, prefix: llvm.prefix.clone() }))
        }
        _ => Some(packages(facts, &names.iter().map(String::as_str).collect::<Vec<_>>(), WHY)),
    }
}

fn packages(facts: &Facts, names: &[&str], why: &'static str) -> Next {
    if can_install(facts) {
        return Next::Do(Step::Packages { names: names.iter().map(|it| (*it).to_owned()).collect(), why });
    }
    if facts.apt.is_some() {
        let names = names.join(" ");
        return Next::Stuck(format!(
            "missing: {why}\nonly root can install packages; run `cargo xtask setup` as root, or have this done:\n  \
             apt-get update && apt-get install --no-install-recommends --no-remove {names}"
        ));
    }
    Next::Stuck(by_hand(why))
}

fn by_hand(missing: &str) -> String {
    let llvm = LINKER_LLVM.map(|it| it.to_string()).join(", ");
    let (major, minor) = OLDEST;
    format!(
        "missing: {missing}\nthis system's packages cannot mend it by themselves; these parts are needed:\n  \
         a C and a C++ compiler\n  \
         rustc {major}.{minor} or later with its library source: rustup toolchain install nightly --component rust-src\n  \
         the development files of one of LLVM {llvm}, not older than `rustc -vV` names for that compiler\n  \
         bpf-linker: LLVM_PREFIX=<where that LLVM is> cargo install bpf-linker --version {LINKER_VERSION} --locked \
         --no-default-features --features llvm-<its version>\n\
         then run `cargo xtask setup` again"
    )
}

#[cfg(test)]
mod tests {
    use super::super::facts::{Llvm, Origin};
    use super::*;

    fn rustc(origin: Origin, llvm: u32, source: bool) -> Compiler {
        Compiler { path: format!("/{origin:?}/rustc").into(), version: (1, 96), llvm, source, origin }
    }

    fn linker(llvm: Option<u32>) -> Option<Linker> {
        Some(Linker { path: "/bin/bpf-linker".into(), llvm })
    }

    fn bare() -> Facts {
        Facts { cc: true, cxx: true, apt: Some(Apt::default()), root: true, ..Facts::default() }
    }

    fn names(next: &Next) -> Vec<String> {
        match next {
            Next::Do(Step::Packages { names, .. }) => names.clone(),
            other @ (Next::Ready(_) | Next::Do(_) | Next::Stuck(_)) => panic!("not packages: {other:?}"),
        }
    }

    #[test]
    fn a_bare_debian_gets_there_step_by_step() {
        let mut facts = Facts { cc: false, ..bare() };
        assert_eq!(names(&next(&facts)), ["gcc", "libc6-dev"]);
        facts.cc = true;
        assert_eq!(names(&next(&facts)), ["rustc-web", "rust-web-src"]);
        facts.compilers.push(rustc(Origin::Distribution, 22, true));
        assert_eq!(next(&facts), Next::Do(Step::ListPackages));
        facts.listed = true;
        facts.apt = Some(Apt { llvm: vec![21, 22], installed: vec!["zlib1g-dev".to_owned()] });
        assert_eq!(names(&next(&facts)), ["llvm-22-dev", "libpolly-22-dev", "libzstd-dev"]);
        facts.llvms.push(Llvm { major: 22, prefix: "/usr/lib/llvm-22".into() });
        facts.apt = Some(Apt { llvm: vec![21, 22], installed: llvm_packages(22).to_vec() });
        assert_eq!(next(&facts), Next::Do(Step::BuildLinker { llvm: 22, prefix: "/usr/lib/llvm-22".into() }));
        facts.linker = linker(Some(22));
        assert!(matches!(next(&facts), Next::Ready(_)));
    }

    #[test]
    fn a_nightly_without_source_is_not_chosen() {
        let compilers = vec![rustc(Origin::RustupNightly, 22, false), rustc(Origin::Distribution, 22, true)];
        let facts = Facts { compilers, linker: linker(Some(22)), ..bare() };
        match next(&facts) {
            Next::Ready(chosen) => assert_eq!(chosen.compiler.origin, Origin::Distribution),
            other @ (Next::Do(_) | Next::Stuck(_)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_nightly_with_source_comes_first_unless_the_linker_is_too_old_for_it() {
        for (llvm, origin) in [(22, Origin::RustupNightly), (23, Origin::Distribution)] {
            let compilers = vec![rustc(Origin::RustupNightly, llvm, true), rustc(Origin::Distribution, 22, true)];
            match next(&Facts { compilers, linker: linker(Some(22)), ..bare() }) {
                Next::Ready(chosen) => assert_eq!(chosen.compiler.origin, origin),
                other @ (Next::Do(_) | Next::Stuck(_)) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_nightly_whose_llvm_nobody_offers_falls_back_to_the_distributions_pair() {
        let apt = Some(Apt { llvm: vec![21, 22], installed: Vec::new() });
        let facts = Facts { compilers: vec![rustc(Origin::RustupNightly, 23, true)], apt, listed: true, ..bare() };
        assert_eq!(names(&next(&facts)), ["rustc-web", "rust-web-src"]);
    }

    #[test]
    fn an_old_compiler_does_not_count() {
        let old = Compiler { version: (1, 85), ..rustc(Origin::Distribution, 19, true) };
        assert_eq!(names(&next(&Facts { compilers: vec![old], ..bare() })), ["rustc-web", "rust-web-src"]);
    }

    #[test]
    fn without_root_or_apt_nothing_is_installed_and_a_person_is_told_what_to_do() {
        for facts in [Facts { root: false, ..bare() }, Facts { apt: None, ..bare() }] {
            match next(&facts) {
                Next::Stuck(advice) => assert!(advice.contains("install"), "{advice}"),
                other @ (Next::Ready(_) | Next::Do(_)) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn without_root_a_linker_is_still_built_when_llvm_is_there() {
        let facts = Facts {
            compilers: vec![rustc(Origin::RustupNightly, 22, true)],
            llvms: vec![Llvm { major: 22, prefix: "/usr".into() }],
            apt: None,
            root: false,
            ..bare()
        };
        assert_eq!(next(&facts), Next::Do(Step::BuildLinker { llvm: 22, prefix: "/usr".into() }));
    }
}
