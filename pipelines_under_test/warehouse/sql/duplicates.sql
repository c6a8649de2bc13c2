-- The duplicate rate before and after deduplication, as the two exports show it. One row.
--
-- Before: distinct messages over distinct events of the raw export. A row that the export wrote twice has one message id.
-- After: what the counts come to, over the events that they should come to, each of which belongs into one cell of 10 s of
-- every dimension; where the dimensions differ, the highest. Duplicates and losses make up for each other here.
-- The exports do not keep step, so only windows are counted (and their events `settled`) that ended so long before the
-- newest message of the raw export as the parameter behind_ms says. Nobody publishes in order to the millisecond.
-- Country ZZ is nobody's: events of a test before the traffic, which are left out.
WITH
  messages AS (
    SELECT
      message_id,
      event_id,
      country = 'ZZ' AS test,
      event_time_ms - MOD(event_time_ms, 10000) + 10000 <= (SELECT MAX(created_ms) FROM raw) - @behind_ms AS settled
    FROM raw
    WHERE event_id IS NOT NULL
  ),
  published AS (
    SELECT
      COUNT(DISTINCT IF(test, NULL, message_id)) AS messages,
      COUNT(DISTINCT IF(test, NULL, event_id)) AS events,
      COUNT(DISTINCT IF(settled AND NOT test, event_id, NULL)) AS settled,
      COUNT(DISTINCT IF(settled AND test, event_id, NULL)) AS tests
    FROM messages
  ),
  latest AS (
    SELECT dimension, count
    FROM counts
    WHERE window_s = 10 AND window_start_ms + 10000 <= (SELECT MAX(created_ms) FROM raw) - @behind_ms
    QUALIFY ROW_NUMBER() OVER (PARTITION BY dimension, key, window_start_ms ORDER BY version DESC) = 1
  ),
  sums AS (
    SELECT dimension, SUM(count) AS counted
    FROM latest
    GROUP BY dimension
  ),
  compared AS (
    SELECT messages, events, settled, IFNULL((SELECT MAX(counted) FROM sums), 0) - tests AS counted
    FROM published
  )
SELECT
  messages,
  events,
  SAFE_DIVIDE(messages - events, events) AS before,
  settled,
  counted,
  SAFE_DIVIDE(counted - settled, settled) AS after
FROM compared
