-- The duplicate rate before and after deduplication, as the two exports show it. One row.
--
-- Before: distinct messages over distinct events of the raw export. A row that the export wrote twice has one message id.
-- After: what the counts hold too much, over the cells that these same events make, in the dimension and window where it
-- is most; every event is counted once in each. A cell that holds too little does not make up for one with too much.
-- Country ZZ is nobody's: events of a test before the traffic, which are left out.
WITH
  events AS (
    SELECT
      event_id,
      ANY_VALUE(tweet_id) AS tweet_id,
      ANY_VALUE(author_id) AS author_id,
      ANY_VALUE(engagement) AS engagement,
      ANY_VALUE(event_time_ms) AS event_time_ms,
      ANY_VALUE(country) = 'ZZ' AS test
    FROM raw
    WHERE event_id IS NOT NULL
    GROUP BY event_id
  ),
  keyed AS (
    SELECT 'tweet' AS dimension, CONCAT(CAST(tweet_id AS STRING), '|', engagement) AS key, event_time_ms, test
    FROM events
    UNION ALL
    SELECT 'author' AS dimension, CONCAT(CAST(author_id AS STRING), '|', engagement) AS key, event_time_ms, test
    FROM events
  ),
  expected AS (
    SELECT
      dimension,
      key,
      window_s,
      event_time_ms - MOD(event_time_ms, window_s * 1000) AS window_start_ms,
      COUNT(*) AS events,
      LOGICAL_AND(test) AS test
    FROM keyed CROSS JOIN UNNEST([10, 60]) AS window_s
    GROUP BY dimension, key, window_s, window_start_ms
  ),
  latest AS (
    SELECT dimension, key, window_s, window_start_ms, count
    FROM counts
    WHERE TRUE
    QUALIFY ROW_NUMBER() OVER (PARTITION BY dimension, key, window_s, window_start_ms ORDER BY version DESC) = 1
  ),
  grouped AS (
    SELECT
      dimension,
      window_s,
      SUM(IFNULL(latest.count, 0)) AS counted,
      SUM(GREATEST(IFNULL(latest.count, 0) - IFNULL(expected.events, 0), 0)) AS surplus
    FROM latest FULL JOIN expected USING (dimension, key, window_s, window_start_ms)
    WHERE NOT IFNULL(expected.test, FALSE)
    GROUP BY dimension, window_s
  ),
  published AS (
    SELECT COUNT(DISTINCT message_id) AS messages, COUNT(DISTINCT event_id) AS events
    FROM raw
    WHERE event_id IS NOT NULL AND country != 'ZZ'
  ),
  aggregated AS (
    SELECT IFNULL(MAX(counted), 0) AS counted, IFNULL(MAX(surplus), 0) AS surplus
    FROM grouped
  )
SELECT
  messages,
  events,
  SAFE_DIVIDE(messages - events, events) AS before,
  counted,
  surplus,
  SAFE_DIVIDE(surplus, events) AS after
FROM published CROSS JOIN aggregated
