//! Workloads as a table.

use devenv_engine::status::Workload;

use super::table::table;

/// The lines; CPU and memory are columns where the target tells of any.
pub fn lines(workloads: &[Workload]) -> Vec<String> {
    let ready = |w: &Workload| format!("{}/{}", w.ready, w.wanted);
    let reason = |w: &Workload| w.reason.clone().unwrap_or_default();
    if workloads.iter().all(|w| w.cpu_milli.is_none()) {
        let row = |w: &Workload| {
            let images = w.images.join(",");
            let restarts = w.restarts.to_string();
            [w.name.clone(), ready(w), restarts, images, reason(w)]
        };
        let rows: Vec<[String; 5]> = workloads.iter().map(row).collect();
        return table(&["WORKLOAD", "READY", "RESTARTS", "IMAGE", "REASON"], &rows);
    }
    let row = |w: &Workload| {
        [
            w.name.clone(),
            ready(w),
            w.restarts.to_string(),
            told(w.cpu_milli.map(|milli| format!("{milli}m"))),
            told(w.memory_bytes.map(|bytes| format!("{}Mi", bytes >> 20))),
            w.images.join(","),
            reason(w),
        ]
    };
    let rows: Vec<[String; 7]> = workloads.iter().map(row).collect();
    table(
        &[
            "WORKLOAD", "READY", "RESTARTS", "CPU", "MEMORY", "IMAGE", "REASON",
        ],
        &rows,
    )
}

fn told(amount: Option<String>) -> String {
    amount.unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(name: &str, usage: Option<(u64, u64)>) -> Workload {
        Workload {
            kind: "Deployment".to_owned(),
            name: name.to_owned(),
            ready: 1,
            wanted: 1,
            restarts: 0,
            cpu_milli: usage.map(|(milli, _)| milli),
            memory_bytes: usage.map(|(_, bytes)| bytes),
            images: vec![name.to_owned()],
            reason: None,
        }
    }

    #[test]
    fn usage_has_columns_where_it_is_known() {
        let known = workload("api1", Some((251, (53 << 20) + 5)));
        let unknown = workload("api2", None);
        assert_eq!(
            lines(&[known, unknown.clone()]),
            [
                "WORKLOAD   READY   RESTARTS   CPU    MEMORY   IMAGE   REASON",
                "api1       1/1     0          251m   53Mi     api1",
                "api2       1/1     0          -      -        api2",
            ]
        );
        assert_eq!(
            lines(&[unknown]),
            [
                "WORKLOAD   READY   RESTARTS   IMAGE   REASON",
                "api2       1/1     0          api2",
            ]
        );
    }
}
