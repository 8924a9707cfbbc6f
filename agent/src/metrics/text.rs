//! OpenMetrics brought down to Prometheus' text format.

use std::collections::BTreeMap;

/// OpenMetrics brought down to Prometheus' text format 0.0.4: no `# EOF`, no `# UNIT`, no exemplars; counters typed on their `_total` name;
/// info as gauge.
pub fn as_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut counters: BTreeMap<&str, &str> = BTreeMap::new();
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ")
            && let Some((name, kind)) = rest.split_once(' ')
        {
            counters.insert(name, kind);
        }
    }
    for line in open_metrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        if let Some(rest) = line.strip_prefix("# HELP ")
            && let Some((name, help)) = rest.split_once(' ')
        {
            text.push_str(&format!("# HELP {} {help}\n", text_name(name, counters.get(name).copied())));
        } else if let Some(rest) = line.strip_prefix("# TYPE ")
            && let Some((name, kind)) = rest.split_once(' ')
        {
            let shown = match kind {
                "info" => "gauge",
                "unknown" => "untyped",
                other => other,
            };
            text.push_str(&format!("# TYPE {} {shown}\n", text_name(name, Some(kind))));
        } else {
            text.push_str(without_exemplar(line));
            text.push('\n');
        }
    }
    text
}

fn text_name(name: &str, kind: Option<&str>) -> String {
    match kind {
        Some("counter") => format!("{name}_total"),
        Some("info") => format!("{name}_info"),
        _ => name.to_owned(),
    }
}

/// A sample without what stands after ` # `, which cannot occur in a label's value unescaped outside quotes.
fn without_exemplar(line: &str) -> &str {
    let mut quoted = false;
    let mut escaped = false;
    for (at, letter) in line.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '#' if !quoted => return line[..at].trim_end(),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_brought_down_to_text() {
        let open = "# HELP a Things.\n# TYPE a counter\na_total{t=\"x # y\"} 3 # {trace_id=\"1\"} 1 2\n# HELP b_seconds Time.\n# TYPE b_seconds gauge\n# UNIT b_seconds seconds\nb_seconds 1.5\n# TYPE c info\nc_info{v=\"1\"} 1\n# EOF\n";
        let text = "# HELP a_total Things.\n# TYPE a_total counter\na_total{t=\"x # y\"} 3\n# HELP b_seconds Time.\n# TYPE b_seconds gauge\nb_seconds 1.5\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n";
        assert_eq!(as_text(open), text);
    }
}
