//! What keeps a host from starting is said with its place and with what to do, and nothing is touched.

use std::path::Path;

use tidegate_tests::guests;
use tidegate_tests::host::Home;

use super::through;

/// A host that does not start says all of this, and ends with this code.
async fn check(home: &Home, code: i32, says: &[&str]) {
    let said = home.ask(&["run"]).await;
    assert_eq!(said.code, Some(code), "{}", said.stderr);
    for text in says {
        assert!(said.stderr.contains(text), "no {text:?} in:\n{}", said.stderr);
    }
}

fn config() -> String {
    through("http://127.0.0.1:9")
}

fn with_plugin(plugin: &Path, grants: &str) -> Home {
    let plain = guests::build("plain");
    let config = config().replace(&plain.display().to_string(), &plugin.display().to_string());
    Home::new(&config.replace("grants = { state = true, config = {} }", grants))
}

#[tokio::test]
async fn an_unknown_key_is_shown_where_it_stands_with_the_nearest_one() {
    let home = Home::new(&config().replace("reads = ", "raeds = "));
    let says = ["tidegate.toml:23:1", "config-unknown-key", "raeds", "reads"];
    check(&home, 2, &says).await;
    assert!(!home.path().join("data").exists(), "it has touched the ledger");
}

#[tokio::test]
async fn a_reference_to_nothing_is_shown_where_it_stands() {
    let home = Home::new(&config().replace("reads = \"scripts\"", "reads = \"script\""));
    check(&home, 2, &["tidegate.toml:23:9", "config-unknown-reference", "scripts"]).await;
}

#[tokio::test]
async fn a_file_that_is_no_component_is_refused() {
    let home = with_plugin(Path::new("plain.wasm"), "");
    std::fs::write(home.path().join("plain.wasm"), "no wasm").unwrap();
    check(&home, 1, &["consumer plain", "plain.wasm", "plugin-not-component"]).await;
}

#[tokio::test]
async fn a_plugin_of_a_newer_contract_is_refused() {
    let home = with_plugin(&guests::assemble("newer-contract").unwrap(), "");
    check(
        &home,
        1,
        &[
            "consumer plain",
            "plugin-contract-newer",
            "0.2.0",
            "tidegate:plugin@0.1",
        ],
    )
    .await;
}

#[tokio::test]
async fn an_import_that_was_not_granted_is_refused_with_the_grant_to_add() {
    let home = with_plugin(&guests::build("plain"), "");
    check(
        &home,
        1,
        &[
            "[plugin-import-not-granted]",
            "wasi:keyvalue",
            "grants = { state = true }",
        ],
    )
    .await;
    let home = with_plugin(
        &guests::assemble("wants-http").unwrap(),
        "grants = { http = [\"https://a.example\"] }",
    );
    check(&home, 1, &["plugin-import-not-available", "wasi:http"]).await;
}

#[tokio::test]
async fn the_admin_api_is_not_opened_to_the_network_without_a_token() {
    let home = Home::new(&config());
    let file = home.path().join("tidegate.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(file, config.replace("${ADMIN:-127.0.0.1:0}", "0.0.0.0:0")).unwrap();
    check(&home, 2, &["config-token-needed", "0.0.0.0:0", "127.0.0.1"]).await;
}

#[tokio::test]
async fn a_second_host_on_the_same_folder_is_refused_and_the_first_runs_on() {
    let home = Home::new(&config());
    let host = home.start().await;
    check(&home, 1, &["ledger-locked", "another process"]).await;
    host.until_ready().await;
    host.stop().await;
}

#[tokio::test]
async fn a_folder_that_is_no_ledger_of_this_version_is_refused_and_left_as_it_is() {
    let home = Home::new(&config());
    home.start().await.stop().await;
    let state = home.path().join("data/tidegate-store");
    let current = std::fs::read_to_string(&state).unwrap();
    let cases = [
        ("tidegate store\nformat 999\nopen\n", "ledger-newer"),
        ("tidegate store\nformat 1\nopen\n", "ledger-older"),
        ("tidegate sto", "ledger-damaged"),
    ];
    for (content, says) in cases {
        std::fs::write(&state, content).unwrap();
        check(&home, 1, &[says, "data"]).await;
        assert_eq!(std::fs::read_to_string(&state).unwrap(), content);
    }
    std::fs::write(&state, current).unwrap();
    let (database, aside) = (home.path().join("data/database"), home.path().join("aside"));
    std::fs::rename(&database, &aside).unwrap();
    check(&home, 1, &["ledger-damaged", "data"]).await;
    assert!(!database.exists(), "it has made an empty one");
    std::fs::rename(&aside, &database).unwrap();
    home.start().await.stop().await;
}
