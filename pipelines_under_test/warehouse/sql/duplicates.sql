-- The duplicate rate before and after deduplication, as the two exports show it. One row.
--
-- Before: distinct messages over distinct events of the raw export. A row that the export wrote twice has one message id.
-- After: what the counts come to over these same events, each of which belongs into one cell of every dimension and window
-- length; where several of these come to different sums, the highest. Duplicates and losses make up for each other here.
-- Country ZZ is nobody's: events of a test before the traffic, which are left out.
WITH
  published AS (
    SELECT
      COUNT(DISTINCT IF(country != 'ZZ', message_id, NULL)) AS messages,
      COUNT(DISTINCT IF(country != 'ZZ', event_id, NULL)) AS events,
      COUNT(DISTINCT IF(country = 'ZZ', event_id, NULL)) AS tests
    FROM raw
    WHERE event_id IS NOT NULL
  ),
  latest AS (
    SELECT dimension, window_s, count
    FROM counts
    WHERE TRUE
    QUALIFY ROW_NUMBER() OVER (PARTITION BY dimension, key, window_s, window_start_ms ORDER BY version DESC) = 1
  ),
  sums AS (
    SELECT dimension, window_s, SUM(count) AS counted
    FROM latest
    GROUP BY dimension, window_s
  ),
  compared AS (
    SELECT messages, events, IFNULL((SELECT MAX(counted) FROM sums), 0) - tests AS counted
    FROM published
  )
SELECT
  messages,
  events,
  SAFE_DIVIDE(messages - events, events) AS before,
  counted,
  SAFE_DIVIDE(counted - events, events) AS after
FROM compared
