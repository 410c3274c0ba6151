//! Tools of Debian packages that are unpacked and not installed: no service of theirs starts on this host.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{place, progress};

/// A package whose files are below `target/peers`.
#[derive(Debug)]
pub(super) struct Unpacked {
    root: PathBuf,
}

impl Unpacked {
    /// Gets packages from this host's mirrors, and unpacks them once.
    pub(super) fn of(packages: &[&str]) -> Result<Self> {
        let home = place::target_dir().join("peers").join(packages.join("+"));
        let root = home.join("root");
        if root.exists() {
            return Ok(Self { root });
        }
        for program in ["apt-get", "dpkg-deb"] {
            place::which(program).with_context(|| format!("{program} is not there"))?;
        }
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
        let mut get = Command::new("apt-get");
        get.arg("download").args(packages).current_dir(&home);
        progress::run(&format!("apt-get download {}", packages.join(" ")), &mut get)
            .context("are the package lists there? `apt-get update` gets them")?;
        // Under another name until all of it is there.
        let part = home.join("part");
        for entry in fs::read_dir(&home).context("listing the packages")? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "deb")
                && !Command::new("dpkg-deb").arg("--extract").arg(&path).arg(&part).status()?.success()
            {
                bail!("{} cannot be unpacked", path.display());
            }
        }
        fs::rename(&part, &root).context("naming what was unpacked")?;
        Ok(Self { root })
    }

    /// The words that run a program of the package with the libraries beside it.
    pub(super) fn words(&self, program: &str) -> Vec<String> {
        let root = self.root.display();
        let libraries = format!("LD_LIBRARY_PATH={root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu");
        vec!["env".to_owned(), libraries, format!("{root}/{program}")]
    }
}
