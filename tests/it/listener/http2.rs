//! Row 12: HTTP/2, which no listener speaks.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Scripted, Sidecar, raw};

/// A frame of HTTP/2 on a stream.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

#[tokio::test]
async fn hostile_12_http_2_is_not_spoken_and_its_floods_end_with_their_first_bytes() {
    let heir = Scripted::start().await;
    let sidecar = Sidecar::start(&heir.url(), "");
    let (settings, headers, reset, goes_on, data) = (4, 1, 3, 9, 0);
    let floods = [
        // Header blocks that never end; streams that are reset as soon as they are open; frames without a byte.
        [
            frame(headers, 0, 1, &[0x82]),
            frame(goes_on, 0, 1, &[0; 1_024]).repeat(64),
        ]
        .concat(),
        [frame(headers, 5, 1, &[0x82]), frame(reset, 0, 1, &[0; 4])]
            .concat()
            .repeat(512),
        frame(data, 0, 1, &[]).repeat(4_096),
        frame(settings, 0, 0, &[]).repeat(4_096),
    ];
    for address in [sidecar.data, sidecar.admin] {
        for flood in &floods {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream
                .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                .await
                .unwrap();
            // Far more than buffers of the kernel hold, unless the other side closes.
            let mut sent = 0;
            while sent < 256 << 20 {
                match tokio::time::timeout(Duration::from_secs(60), stream.write_all(flood))
                    .await
                    .unwrap()
                {
                    Ok(()) => sent += flood.len(),
                    Err(_closed) => break,
                }
            }
            assert!(sent < 64 << 20, "{sent} bytes were taken");
            let mut answer = Vec::new();
            let _reset = stream.read_to_end(&mut answer).await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(!answer.contains(" 200 ") && !answer.contains(" 101 "), "{answer}");
        }
        // Nor is it agreed on.
        let upgrade = "GET /live HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings, close\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n";
        let answer = raw(address, upgrade).await;
        assert!(
            answer.starts_with("HTTP/1.1 ") && !answer.starts_with("HTTP/1.1 101"),
            "{answer}"
        );
    }
    assert_eq!(sidecar.admin().get("/live").await.status, http::StatusCode::OK);
    sidecar.stop().await;
}
