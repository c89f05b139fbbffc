//! What the console says of services.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use super::*;
use crate::config::Config;
use crate::service::{ServiceState, Status};

/// A boot whose console can be read, and who tells it how services are.
fn boot(dir: &tempfile::TempDir) -> (Boot, watch::Sender<Option<Up>>, File) {
    let paths = Paths::development(dir.path());
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let searching = network::State::Searching { why: "a carrier".into(), addresses: Vec::new() };
    let (manager, told) = watch::channel(None);
    let boot = Boot {
        console: Console::on(Some(writer.into())),
        paths,
        // Nobody sends, and what is there holds.
        network: kept(searching),
        bootstrap: kept(bootstrap::follow::State::default()),
        manager: told,
        let_in: None,
        listens_at: Mutex::default(),
    };
    (boot, manager, reader.into())
}

fn kept<T>(value: T) -> watch::Receiver<T> {
    let (sender, receiver) = watch::channel(value);
    std::mem::forget(sender);
    receiver
}

/// Services in these states.
fn up(server: &Server, services: &[(&str, ServiceState, &str)]) -> Option<Up> {
    let one = |(name, state, why): &(&str, ServiceState, &str)| (name.to_string(), Status::new(*state, *why));
    let list: BTreeMap<_, _> = services.iter().map(one).collect();
    Some(Up { server: server.clone(), services: Some(Summary::of(&list)) })
}

/// The lines of the console about services, as far as they were written.
fn of_services(mut console: File) -> Vec<String> {
    let mut text = String::new();
    console.read_to_string(&mut text).unwrap();
    let about = text.lines().filter_map(|line| line.split_once("services   "));
    about.map(|(_, state)| state.trim_end().into()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_becomes_ready_is_named_and_holds_up_no_page_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(Paths::development(dir.path()).run()).unwrap();
    let (boot, manager, console) = boot(&dir);
    let server = Server::set_up(&boot.paths, &Config::default()).unwrap();
    let never = ("never", ServiceState::Pausing, "it was not ready within 1 s");
    manager.send_replace(up(&server, &[("fine", ServiceState::Ready, ""), never]));
    let stage = STAGES.iter().find(|stage| stage.name == "services").unwrap();
    let Run::Manager(run) = stage.run else { panic!("it is the manager's") };
    boot.stage(stage, run).await;
    boot.console.page();
    let follows = async {
        // It may say the same again: that is told once.
        manager.send_replace(up(&server, &[("fine", ServiceState::Ready, ""), never]));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let failed = ("fine", ServiceState::Failed, "exit code 1");
        manager.send_replace(up(&server, &[failed, never]));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let ready = ["fine", "never"].map(|name| (name, ServiceState::Ready, ""));
        manager.send_replace(up(&server, &ready));
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(manager);
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        () = boot.follow() => panic!("it follows to the end"),
        () = follows => {}
    }
    drop(boot);
    assert_eq!(
        of_services(console),
        [
            "runs",
            "waits   1 of 2; never: pausing, it was not ready within 1 s",
            "waits   1 of 2; never: pausing, it was not ready within 1 s",
            "waits   0 of 2; fine: failed, exit code 1; never: pausing, it was not ready within 1 s",
            "done    2",
        ],
        "the second is that of the page"
    );
}

#[tokio::test(start_paused = true)]
async fn services_that_become_ready_in_time_are_done_at_once() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(Paths::development(dir.path()).run()).unwrap();
    let (boot, manager, console) = boot(&dir);
    let server = Server::set_up(&boot.paths, &Config::default()).unwrap();
    let stage = STAGES.iter().find(|stage| stage.name == "services").unwrap();
    let Run::Manager(run) = stage.run else { panic!("it is the manager's") };
    let becomes = async {
        manager.send_replace(Some(Up { server: server.clone(), services: None }));
        tokio::time::sleep(Duration::from_secs(60)).await;
        manager.send_replace(up(&server, &[("slow", ServiceState::Starting, "")]));
        tokio::time::sleep(Duration::from_secs(2)).await;
        manager.send_replace(up(&server, &[("slow", ServiceState::Ready, "")]));
    };
    tokio::join!(boot.stage(stage, run), becomes);
    drop(boot);
    assert_eq!(of_services(console), ["runs", "done    1"]);
}
