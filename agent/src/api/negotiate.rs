//! Which form of `/metrics` a client is given. Pure.

/// The forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Text,
    /// Statistics as JSON.
    Json,
}

impl Form {
    /// The exact content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::Json => "application/json",
        }
    }
}

/// Chooses by `?format=` and the Accept header: the highest q wins, ties go by order; what is not known means text, never a refusal.
pub fn choose(format: Option<&str>, accept: Option<&str>) -> Form {
    match format {
        Some("json") => return Form::Json,
        Some("prometheus" | "text") => return Form::Text,
        Some("openmetrics") => return Form::OpenMetrics,
        _ => {}
    }
    let mut best: Option<(f32, Form)> = None;
    for part in accept.unwrap_or_default().split(',') {
        let mut fields = part.split(';').map(str::trim);
        let form = match fields.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "application/openmetrics-text" => Form::OpenMetrics,
            "text/plain" | "*/*" | "text/*" => Form::Text,
            "application/json" | "application/*" => Form::Json,
            _ => continue,
        };
        let quality = fields.find_map(|field| field.strip_prefix("q=")).and_then(|q| q.parse().ok()).unwrap_or(1.0_f32);
        if quality > 0.0 && best.is_none_or(|(so_far, _)| quality > so_far) {
            best = Some((quality, form));
        }
    }
    best.map_or(Form::Text, |(_, form)| form)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: Option<&str>, accept: Option<&str>, expected: Form) {
        assert_eq!(choose(format, accept), expected, "{format:?} {accept:?}");
    }

    #[test]
    fn every_known_client_gets_what_it_reads() {
        check(None, Some("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"), Form::OpenMetrics);
        check(None, Some("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.7,*/*;q=0.2"), Form::OpenMetrics);
        check(None, Some("text/plain;version=0.0.4;q=0.3,*/*;q=0.1"), Form::Text);
        check(None, Some("*/*"), Form::Text);
        check(None, None, Form::Text);
        check(None, Some("application/json, text/plain, */*"), Form::Json);
        check(None, Some("text/html"), Form::Text);
        check(None, Some("application/json;q=0.1,text/plain"), Form::Text);
        check(None, Some("application/json;q=0"), Form::Text);
        check(Some("json"), Some("text/plain"), Form::Json);
        check(Some("prometheus"), Some("application/json"), Form::Text);
    }
}
