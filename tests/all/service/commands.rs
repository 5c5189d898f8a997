//! The README's first plugin, command by command; and what the commands say of a host that runs and of one that does not.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tidegate_tests::host::{Home, Host, until};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The block of the README that holds this text.
fn readme(holds: &str) -> String {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut blocks = text.split("```").skip(1).step_by(2);
    let block = blocks.find(|block| block.contains(holds)).expect("the README has it");
    block.split_once('\n').unwrap().1.to_owned()
}

/// Runs one of its commands in a shell.
fn shell(folder: &Path, command: &str) {
    let output = Command::new("sh")
        .args(["-ec", command])
        .current_dir(folder)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}\n{stderr}");
}

/// A copy of the template, tested and built as the README says, beside what it refers to.
fn first_plugin(folder: &Path) {
    let rust = folder.join("plugins/rust");
    std::fs::create_dir_all(&rust).unwrap();
    std::os::unix::fs::symlink(root().join("wit"), folder.join("wit")).unwrap();
    std::os::unix::fs::symlink(root().join("plugins/rust/sdk"), rust.join("sdk")).unwrap();
    // A copy of its sources: what is built in it, or in a copy of it, must not land in the repository.
    std::fs::create_dir_all(rust.join("template")).unwrap();
    for part in ["Cargo.toml", "Cargo.lock", "build.rs", "src"] {
        let part = root().join("plugins/rust/template").join(part);
        shell(&rust, &format!("cp -r '{}' template", part.display()));
    }
    let target = root().join("target/guests");
    for line in readme("cp -r plugins/rust/template").lines() {
        // Each line has a shell of its own: what comes after `cd` is run there.
        match line {
            line if line.starts_with("cd ") => {}
            line if line.starts_with("cp ") => {
                shell(folder, line);
                // What other tests have built serves here, too.
                std::os::unix::fs::symlink(&target, rust.join("invoices/target")).unwrap();
            }
            line => shell(&rust.join("invoices"), line),
        }
    }
}

/// The arguments of the README's commands that begin so; a backslash joins lines.
fn asked(begins: &str) -> Vec<Vec<String>> {
    let block = readme("alias tidegate=").replace("\\\n", "");
    let lines = block.lines().filter(|line| line.starts_with(begins));
    let words = |line: &str| {
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!("for word in {line}; do echo \"$word\"; done"))
            .output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.lines().skip(1).map(str::to_owned).collect()
    };
    lines.map(|line| words(line.split(" #").next().unwrap())).collect()
}

async fn ask(host: &Host<'_>, args: &[&str]) -> Vec<Value> {
    host.ask(args).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_plugin_of_the_readme() {
    let home = Home::new(&readme("[consumer.billing]"));
    first_plugin(home.path());
    let config = std::fs::read_to_string(home.path().join("tidegate.toml")).unwrap();
    let config = config.replace("plugin = \".\"", "plugin = \"plugins/rust/invoices\"");
    std::fs::write(home.path().join("tidegate.toml"), config).unwrap();

    // It emits: without `writes` it would in vain.
    let written = std::fs::read_to_string(home.path().join("tidegate.toml")).unwrap();
    std::fs::write(
        home.path().join("tidegate.toml"),
        written.replace("writes = \"invoices\"", ""),
    )
    .unwrap();
    let said = home.ask(&["check"]).await;
    assert!(
        said.stderr.contains("warning[plugin-writes-nowhere]"),
        "{}",
        said.stderr
    );
    std::fs::write(home.path().join("tidegate.toml"), written).unwrap();
    let said = home.ask(&["check"]).await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    let said = home.ask(&["inspect", "plugins/rust/invoices"]).await;
    assert!(said.stdout.contains("writes = "), "{}", said.stdout);
    let host = home.start().await;
    host.until_ready().await;
    let publications = asked("tidegate publish");
    assert_eq!(publications.len(), 2);
    for words in &publications {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = host.ask(&words).await;
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        assert!(said.stdout.starts_with("published 1 to orders: "), "{}", said.stdout);
    }
    let said = host.ask(&["publish", "ordrs", "--type", "a"]).await;
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("did you mean orders?"), "{}", said.stderr);
    until("both are through", async || {
        host.deliveries("billing", "committed").await == 1.0 && host.deliveries("billing", "dead").await == 1.0
    })
    .await;

    // The dead letters, while the host runs.
    let list = ask(&host, &["dlq", "list", "--json"]).await;
    let [letter] = list.as_slice() else { panic!("{list:?}") };
    assert_eq!(letter["reason"], "permanent");
    let id = letter["id"].as_str().unwrap();
    let shown = host.ask(&["dlq", "show", id]).await;
    for text in ["o-2", "permanent", "quantity", "redrive"] {
        assert!(shown.stdout.contains(text), "no {text} in:\n{}", shown.stdout);
    }
    ask(&host, &["dlq", "redrive", id.get(..8).unwrap(), "--json"]).await;
    until("it is dead again", async || {
        host.deliveries("billing", "dead").await == 2.0
    })
    .await;
    host.stop().await;

    // And while none does.
    let list = home.ask(&["dlq", "list", "--json"]).await.json();
    assert_eq!(list.len(), 1);
    let purged = home.ask(&["dlq", "purge", "--all", "--json"]).await.json();
    assert_eq!(purged[0]["count"], 1, "{purged:?}");
    assert!(home.ask(&["dlq", "list", "--json"]).await.json().is_empty());
    let said = home.ask(&["publish", "orders", "--type", "a"]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("error[no-host]"), "{}", said.stderr);
    assert!(said.stderr.contains("tidegate run"), "{}", said.stderr);
}

/// `tidegate run & tidegate publish ...`, as the README has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_for_the_host_that_is_starting() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = free.local_addr().unwrap();
    drop(free);
    let home = Home::new("");
    let config = format!(
        "ledger.url = \"embedded:data\"\nbroker.main.url = \"embedded:\"\nstream.orders.broker = \"main\"\nadmin.listen = \"{admin}\"\n"
    );
    std::fs::write(home.path().join("tidegate.toml"), config).unwrap();

    let publish = ["publish", "orders", "--type", "a", "--id", "a-1", "--json"];
    let (said, host) = tokio::join!(home.ask(&publish), home.start());
    let [published] = said.json().try_into().unwrap();
    assert_eq!(published, serde_json::json!({ "published": 1, "ids": ["a-1"] }));
    host.stop().await;
}
