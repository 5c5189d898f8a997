//! Latencies out of the host's own histograms, the way Prometheus computes them: linear within a bucket.

/// The bound below which the share `quantile` of all events was settled, in seconds; `None` if none was.
#[must_use]
pub fn quantile(metrics: &str, quantile: f64) -> Option<f64> {
    let buckets = buckets(metrics);
    let (_, total) = *buckets.last()?;
    let wanted = total * quantile;
    let mut below = (0.0, 0.0);
    for (bound, count) in buckets {
        if count >= wanted && count > below.1 {
            // The last bucket has no upper bound: all that is known is its lower one.
            let width = if bound.is_finite() { bound - below.0 } else { 0.0 };
            return Some(below.0 + width * (wanted - below.1) / (count - below.1));
        }
        below = (bound, count);
    }
    None
}

/// Upper bounds and cumulative counts of all consumers together, in order.
fn buckets(metrics: &str) -> Vec<(f64, f64)> {
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for line in metrics
        .lines()
        .filter(|line| line.starts_with("tidegate_event_seconds_bucket"))
    {
        let bound = line.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
        let bound = bound.map(|bound| bound.parse().unwrap_or(f64::INFINITY));
        let count = line.rsplit(' ').next().and_then(|count| count.parse::<f64>().ok());
        let (Some(bound), Some(count)) = (bound, count) else {
            continue;
        };
        match buckets.iter_mut().find(|(known, _)| known.to_bits() == bound.to_bits()) {
            Some((_, sum)) => *sum += count,
            None => buckets.push((bound, count)),
        }
    }
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = r#"
tidegate_event_seconds_bucket{le="0.001",consumer="a"} 10
tidegate_event_seconds_bucket{le="0.002",consumer="a"} 80
tidegate_event_seconds_bucket{le="+Inf",consumer="a"} 80
tidegate_event_seconds_bucket{le="0.001",consumer="b"} 0
tidegate_event_seconds_bucket{le="0.002",consumer="b"} 10
tidegate_event_seconds_bucket{le="+Inf",consumer="b"} 20
"#;

    #[test]
    fn consumers_are_taken_together_and_buckets_are_linear() {
        assert_eq!(quantile(METRICS, 0.5), Some(0.001 + 0.001 * 40.0 / 80.0));
        assert_eq!(quantile(METRICS, 0.1), Some(0.001));
        assert_eq!(
            quantile(METRICS, 0.99),
            Some(0.002),
            "beyond the last bound only that is known"
        );
    }

    #[test]
    fn nothing_settled_has_no_latency() {
        assert_eq!(quantile("", 0.5), None);
    }
}
