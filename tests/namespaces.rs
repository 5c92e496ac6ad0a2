//! Ends in network namespaces of their own, as two containers have them, that share a directory. Needs root, and the
//! programs `ip`, `nsenter` and `unshare`.
#![allow(missing_docs)]

mod common;

use std::path::Path;

use common::{block_on, in_time, namespace, namespace::SERVER, pattern, promoting, role};
use smcd::{Promotion, SmcListener, SmcStream, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TEST: &str = "containers_that_share_a_directory";

#[test]
fn containers_that_share_a_directory() {
    if let Some(argument) = role() {
        return block_on(in_time(container(&argument)));
    }
    if !namespace::can_be_made() {
        eprintln!("SKIPPED: needs root, `ip`, `nsenter` and `unshare`");
        return;
    }
    let dir = std::env::temp_dir().join(format!("smcd-containers-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    // With a directory in common they meet; without, each looks for the other in its own namespace, and stays TCP.
    for (server_dir, client_dir, meets) in [(&*dir, &*dir, true), (&*dir, Path::new(""), false)] {
        let mut server = namespace::start(TEST, "server", server_dir);
        let mut client = namespace::start(TEST, "client", client_dir);
        namespace::join(&mut server, &mut client);
        for said in namespace::said(&mut server, &mut client) {
            assert_eq!(said.contains("by SMC-D"), meets, "{said}");
        }
    }
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "a name is left");
    std::fs::remove_dir(&dir).unwrap();
}

async fn container(what: &str) {
    namespace::wait();
    // The directory is that of the environment.
    let config = promoting(Promotion::Eager);
    let mut stream = if what == "server" {
        let listener = SmcListener::bind_with((SERVER[0], 7777), config).await.unwrap();
        namespace::is_listening();
        listener.accept().await.unwrap().0
    } else {
        SmcStream::connect_with((SERVER[0], 7777), &config).await.unwrap()
    };
    let mut got = vec![0; 1000];
    for i in 0..100 {
        let sent = pattern(i, 1000);
        if what == "server" {
            stream.write_all(&sent).await.unwrap();
        }
        stream.read_exact(&mut got).await.unwrap();
        assert!(got == sent);
        if what == "client" {
            stream.write_all(&sent).await.unwrap();
        }
    }
    println!("\nconnected by {}", stream.transport());
    let moved = stream.byte_counts();
    assert_eq!(matches!(stream.transport(), Transport::Smcd { .. }), moved.sent > 0 && moved.received > 0);
}
