//! Row 13: what a request could do to the log.

use super::statuses;
use crate::support::{Process, Say, Scripted, eventually, raw};

#[tokio::test]
async fn hostile_13_nothing_a_client_sends_can_forge_a_log_line() {
    let heir = Scripted::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sidecar.yaml");
    std::fs::write(
        &file,
        format!(
            "listen: 127.0.0.1:0\nadmin: {{listen: '127.0.0.1:0'}}\nheir: {{url: '{}'}}\nlog: {{filter: trace}}",
            heir.url()
        ),
    )
    .unwrap();
    // HEIR's own words reach the log as well.
    heir.on(
        "GET /api/v1/snapshot",
        Say::Json(
            200,
            "content-encoding: \u{1b}[31m\u{85}x\r\n",
            "{\"kind\":\"x\\n\\u001b[31m\\u2028\"}".into(),
        ),
    );
    let process = Process::start(&["run", "--config", file.to_str().unwrap()], &[]);
    let data = process.listen[0].clone();
    let long = "x".repeat(64 << 10);
    for value in [
        "evil\u{1b}[31mred\u{1b}[0m",
        "a\u{2028}{\"level\":\"ERROR\"}",
        "a\"},{\"level\":\"ERROR\",\"message\":\"forged\"}",
        "a\\n{\"forged\":1}",
        long.as_str(),
    ] {
        for header in ["x-tenant-id", "user-agent", "x-request-id"] {
            for path in ["/api/v1/policies/acme/chat", "/forwarded"] {
                let bytes = format!(
                    "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{header}: {value}\r\n\r\n"
                );
                let answer = raw(&data, bytes).await;
                let status = statuses(&answer);
                assert_eq!(status.len(), 1, "{header} {answer}");
                if value.len() == long.len() {
                    assert_eq!(status, ["431"], "{header} {answer}");
                } else if header == "x-tenant-id" {
                    assert_eq!(status, ["400"], "{answer}");
                }
            }
        }
        let answer = raw(
            &data,
            format!("GET /api/v1/policies/{value}/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"),
        )
        .await;
        assert!(
            matches!(statuses(&answer)[..], ["400" | "414" | "431"]),
            "{answer}"
        );
        // The operator's own filter is logged too.
        let admin = process.admin.unwrap();
        let filter = format!("trace,{value}");
        raw(
            admin,
            format!(
                "PUT /admin/log HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{filter}",
                filter.len()
            ),
        )
        .await;
    }
    eventually("the log has what was sent", || async {
        process.log().iter().any(|line| line.contains("refresh failed"))
    })
    .await;
    let log = process.log();
    assert!(log.len() > 10, "{log:?}");
    for line in &log {
        let parsed: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(
            parsed["level"].is_string() && parsed["message"].is_string(),
            "{line}"
        );
        assert!(
            !line
                .chars()
                .any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')),
            "{line:?}"
        );
        assert!(line.len() < 16 << 10, "a line of {} bytes", line.len());
    }
}
