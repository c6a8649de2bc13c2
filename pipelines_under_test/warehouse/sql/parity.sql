-- Stream against batch, a row a cell, over the cells of either side.
--
-- The batch output lacks what came later than the parameter late_after_ms after the end of its window. So a cell is 'exact'
-- if both sides are the same and none of its events was late, 'explained' if they differ by just the late ones, in count
-- and in weight, else 'wrong'. Which events were late is told by the raw export: each has the time of its source record.
-- Only windows that ended by the parameter closed_ms are compared. Country ZZ is nobody's: events of a test before the
-- traffic, which have tweets and authors of their own.
WITH
  events AS (  -- those that may be late for a window, and the tests; each once
    SELECT
      event_id,
      ANY_VALUE(tweet_id) AS tweet_id,
      ANY_VALUE(author_id) AS author_id,
      ANY_VALUE(engagement) AS engagement,
      ANY_VALUE(event_time_ms) AS event_time_ms,
      ANY_VALUE(created_ms) AS created_ms,
      ANY_VALUE(weight) AS weight,
      ANY_VALUE(country) = 'ZZ' AS test
    FROM raw
    WHERE event_id IS NOT NULL AND (country = 'ZZ' OR created_ms - event_time_ms > @late_after_ms)
    GROUP BY event_id
  ),
  keyed AS (
    SELECT
      'tweet' AS dimension,
      CONCAT(CAST(tweet_id AS STRING), '|', engagement) AS key,
      event_time_ms, created_ms, weight, test
    FROM events
    UNION ALL
    SELECT
      'author' AS dimension,
      CONCAT(CAST(author_id AS STRING), '|', engagement) AS key,
      event_time_ms, created_ms, weight, test
    FROM events
  ),
  windowed AS (
    SELECT
      dimension,
      key,
      window_s,
      event_time_ms - MOD(event_time_ms, window_s * 1000) AS window_start_ms,
      created_ms, weight, test
    FROM keyed CROSS JOIN UNNEST([10, 60]) AS window_s
  ),
  lateness AS (
    SELECT
      dimension,
      key,
      window_s,
      window_start_ms,
      COUNTIF(created_ms - window_start_ms - window_s * 1000 > @late_after_ms) AS late,
      SUM(IF(created_ms - window_start_ms - window_s * 1000 > @late_after_ms, weight, 0)) AS late_weight,
      LOGICAL_OR(test) AS test
    FROM windowed
    GROUP BY dimension, key, window_s, window_start_ms
  ),
  latest AS (
    SELECT dimension, key, window_s, window_start_ms, count, weight
    FROM counts
    WHERE TRUE
    QUALIFY ROW_NUMBER() OVER (PARTITION BY dimension, key, window_s, window_start_ms ORDER BY version DESC) = 1
  ),
  compared AS (
    SELECT
      dimension,
      key,
      window_s,
      window_start_ms,
      IFNULL(latest.count, 0) AS stream,
      IFNULL(latest.weight, 0) AS stream_weight,
      IFNULL(batch.count, 0) AS batch,
      IFNULL(batch.weight, 0) AS batch_weight,
      IFNULL(lateness.late, 0) AS late,
      IFNULL(lateness.late_weight, 0) AS late_weight
    FROM latest
    FULL JOIN batch USING (dimension, key, window_s, window_start_ms)
    LEFT JOIN lateness USING (dimension, key, window_s, window_start_ms)
    WHERE NOT IFNULL(lateness.test, FALSE) AND window_start_ms + window_s * 1000 <= @closed_ms
  )
SELECT
  dimension,
  key,
  window_s,
  window_start_ms,
  stream,
  stream_weight,
  batch,
  batch_weight,
  late,
  late_weight,
  CASE
    WHEN stream - batch != late OR stream_weight - batch_weight != late_weight THEN 'wrong'
    WHEN late > 0 THEN 'explained'
    ELSE 'exact'
  END AS kind
FROM compared
