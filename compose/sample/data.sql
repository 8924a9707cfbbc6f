-- About 300,000 rows, the same on every load: every value is a function of the row's number.
-- CRC32 of the number stands for chance.

SET NAMES utf8mb4;
SET time_zone = '+00:00';
SET SESSION cte_max_recursion_depth = 100000;

CREATE TEMPORARY TABLE numbers (n INT NOT NULL PRIMARY KEY);
INSERT INTO numbers WITH RECURSIVE count AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM count WHERE n < 60000) SELECT n FROM count;

INSERT INTO customers (email, name, city, country, newsletter, credit_limit, birthday, created_at, notes)
SELECT CONCAT('customer', n, '@example.com'),
       CONCAT(ELT(1 + CRC32(CONCAT('f', n)) % 12, 'Ada','Bruno','Chloé','Dóra','Emil','Fatma','Gül','Hélène','Ivan','Jürgen','Kaoru','李'), ' ',
              ELT(1 + CRC32(CONCAT('l', n)) % 10, 'Meyer','O''Brien','Núñez','Šimková','Sørensen','Østergård','García','Wang','Ivanov','Dubois')),
       IF(n % 17 = 0, NULL, ELT(1 + CRC32(CONCAT('c', n)) % 8, 'Köln','Zürich','São Paulo','Málaga','London','Århus','Orléans','Œuvre')),
       ELT(1 + CRC32(CONCAT('o', n)) % 7, 'DE','CH','BR','ES','GB','DK','FR'),
       CRC32(CONCAT('n', n)) % 2, (CRC32(CONCAT('d', n)) % 1000000) / 100,
       IF(n % 5 = 0, NULL, DATE '1940-01-01' + INTERVAL CRC32(CONCAT('b', n)) % 24000 DAY),
       TIMESTAMP '2023-01-01 00:00:00' + INTERVAL n * 137 SECOND + INTERVAL (n % 1000) * 1000 MICROSECOND,
       CASE n % 40 WHEN 0 THEN '' WHEN 1 THEN CONCAT('line one\nline two\ttab ', n) WHEN 2 THEN '😀 emoji' ELSE NULL END
FROM numbers WHERE n <= 20000;

INSERT INTO products (sku, name, price, vat_percent, weight_kg, labels, attributes, changed_at)
SELECT CONCAT(ELT(1 + n % 4, 'BK','TOY','Gar','el'), '-', LPAD(n, 5, '0')), CONCAT('Product no. ', n),
       (CRC32(CONCAT('p', n)) % 49900 + 100) / 100, IF(n % 3 = 0, 7.00, 19.00),
       IF(n % 11 = 0, NULL, (CRC32(CONCAT('w', n)) % 20000) / 1000), CRC32(CONCAT('s', n)) % 32,
       IF(n % 7 = 0, NULL, JSON_OBJECT('colour', ELT(1 + n % 3, 'red','green','blue'), 'size', n % 50, 'ratio', n / 8, 'tags', JSON_ARRAY('x', n, NULL, TRUE))),
       TIMESTAMP '2024-01-01 00:00:00' + INTERVAL n * 977 SECOND + INTERVAL n * 7 MICROSECOND
FROM numbers WHERE n <= 5000;

INSERT INTO orders (customer_id, status, total, currency, placed_at, shipped_on, remark)
SELECT 1 + CRC32(CONCAT('oc', n)) % 20000, 1 + CRC32(CONCAT('os', n)) % 6, (CRC32(CONCAT('ot', n)) % 100000) / 100, IF(n % 9 = 0, 'CHF', 'EUR'),
       TIMESTAMP '2024-01-01 00:00:00' + INTERVAL n * 911 SECOND + INTERVAL CRC32(CONCAT('ou', n)) % 1000000 MICROSECOND,
       IF(n % 4 = 0, NULL, DATE '2024-01-02' + INTERVAL FLOOR(n * 911 / 86400) DAY), IF(n % 25 = 0, 'please ring twice', NULL)
FROM numbers;

INSERT INTO `order items` (order_id, line, sku, quantity, unit_price)
SELECT n, l.line, p.sku, 1 + CRC32(CONCAT('iq', n, l.line)) % 9, p.price
FROM numbers JOIN (SELECT 1 AS line UNION ALL SELECT 2) AS l
JOIN LATERAL (SELECT 1 + CRC32(CONCAT('ip', n, '/', l.line)) % 5000 AS k) AS pick
JOIN products AS p ON p.sku = CONCAT(ELT(1 + pick.k % 4, 'BK','TOY','Gar','el'), '-', LPAD(pick.k, 5, '0'));

INSERT INTO payments (id, order_id, method, amount, paid_at, reference)
SELECT UNHEX(LEFT(SHA2(CONCAT('payment', n), 256), 32)), n, 1 + n % 4, (CRC32(CONCAT('ot', n)) % 100000) / 100,
       TIMESTAMP '2024-01-01 06:00:00' + INTERVAL n * 911 SECOND + INTERVAL n MICROSECOND, IF(n % 6 = 0, NULL, CONCAT('RF', LPAD(n, 10, '0')))
FROM numbers WHERE n <= 50000;

INSERT INTO stock (warehouse, sku, quantity, reserved, counted_on)
SELECT w.warehouse, p.sku, CRC32(CONCAT('q', p.sku, w.warehouse)) % 500, CRC32(CONCAT('r', p.sku)) % 5,
       IF(p.price > 400, NULL, DATE '2026-01-01' + INTERVAL CRC32(p.sku) % 300 DAY)
FROM products AS p JOIN (SELECT 'BER' AS warehouse UNION ALL SELECT 'LYS') AS w;

INSERT INTO daily_sales (day, store, orders, revenue)
SELECT DATE '2024-01-01' + INTERVAL (n - 1) DIV 10 DAY, 1 + (n - 1) % 10, CRC32(CONCAT('so', n)) % 200, (CRC32(CONCAT('sr', n)) % 5000000) / 100
FROM numbers WHERE n <= 9000;

INSERT INTO price_bands (from_amount, discount, label)
SELECT n * 12.5, LEAST(n / 4, 40), CONCAT('from ', n * 12.5) FROM numbers WHERE n <= 200;

INSERT INTO sessions (token, customer_id, started_at, seen_at, cart)
SELECT SHA2(CONCAT('session', n), 256), IF(n % 3 = 0, NULL, 1 + n % 20000),
       TIMESTAMP '2026-10-01 00:00:00' + INTERVAL n * 61 SECOND + INTERVAL (n % 999) * 1000 MICROSECOND,
       TIMESTAMP '2026-10-01 00:00:00' + INTERVAL n * 61 + n % 3600 SECOND,
       IF(n % 4 = 0, NULL, JSON_ARRAY(JSON_OBJECT('sku', CONCAT('BK-', n % 100), 'n', n % 5)))
FROM numbers WHERE n <= 10000;

INSERT INTO audit (at, actor, action, detail)
SELECT TIMESTAMP '2026-10-01 00:00:00' + INTERVAL (n DIV 2) * 5 SECOND, ELT(1 + (n DIV 2) % 4, 'anna','ben','system','Zoë'),
       ELT(1 + (n DIV 2) % 5, 'login','logout','price','refund','export'), IF((n DIV 2) % 8 = 0, NULL, CONCAT('detail ', n DIV 2))
FROM numbers WHERE n <= 20000;

INSERT INTO instruments (tiny, tiny_unsigned, small, medium, big, big_unsigned, exact, single, `double`, flag, bits, fixed_text, text_short, text_long, text_latin1,
  fixed_bytes, bytes, content, kind, features, document, on_day, at_time, at_time6, in_year, local_time, local_time3, moment, moment6)
VALUES
  (-128, 0, -32768, -8388608, -9223372036854775808, 0, -99999999999999999999.9999999999, -3.40282e38, -1.7976931348623157e308, b'0', b'0', '', '', '', '',
   X'0000000000000000', X'', X'', 1, '', '{}', '1000-01-01', '-838:59:59', '-838:59:58.000001', 1901, '1000-01-01 00:00:00', '1000-01-01 00:00:00.001', '1970-01-01 00:00:01', '1970-01-01 00:00:01.000001'),
  (127, 255, 32767, 8388607, 9223372036854775807, 18446744073709551615, 99999999999999999999.9999999999, 1.17549e-38, 5e-324, b'1', b'1111111111', 'ten chars!', 'trailing blanks  ', REPEAT('long ', 2000), 'café €',
   X'FFFFFFFFFFFFFFFF', X'00FF00', X'DEADBEEF00', 'größe', 'a,b,c,d', '[1, 1.5, "x", null, true, {"k": {"n": 18446744073709551615}}]', '9999-12-31', '838:59:59', '838:59:58.999999', 2155, '9999-12-31 23:59:59', '9999-12-31 23:59:59.999', '2038-01-19 03:14:07', '2038-01-19 03:14:07.999999'),
  (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

INSERT INTO instruments (tiny, tiny_unsigned, small, medium, big, big_unsigned, exact, single, `double`, flag, bits, fixed_text, text_short, text_long, text_latin1,
  fixed_bytes, bytes, content, kind, features, document, on_day, at_time, at_time6, in_year, local_time, local_time3, moment, moment6)
SELECT r % 256 - 128, r % 256, r % 65536 - 32768, r % 16777216 - 8388608, r * 2147483 - 9000000000000000, CAST(r AS UNSIGNED) * 4294967,
       CAST(r AS DECIMAL(30,10)) / 7, r / 3, r / 0.7 * 1e10, r % 2, r % 1024, CONCAT('f', r % 1000), CONCAT('short ', n), REPEAT(CONCAT('text ', n, ' '), n % 50), ELT(1 + n % 3, 'plain', 'naïve', 'ß€'),
       UNHEX(LEFT(SHA2(n, 256), 16)), UNHEX(LEFT(SHA2(n, 256), 2 * (n % 30))), UNHEX(REPEAT(SHA2(n, 256), n % 8)), 1 + n % 3, r % 16,
       JSON_OBJECT('n', n, 'r', r, 'd', r / 3, 'list', JSON_ARRAY(n, 'a', NULL)), DATE '2000-01-01' + INTERVAL n DAY,
       SEC_TO_TIME(r % 6000000 - 3000000), SEC_TO_TIME((r % 1000000000 - 500000000) / 1000), 1901 + n % 250,
       TIMESTAMP '2001-02-03 04:05:06' + INTERVAL r % 700000000 SECOND, TIMESTAMP '2001-02-03 04:05:06' + INTERVAL r * 1000 MICROSECOND,
       TIMESTAMP '1990-01-01 00:00:00' + INTERVAL r % 1000000000 SECOND, TIMESTAMP '1990-01-01 00:00:00' + INTERVAL r MICROSECOND
FROM (SELECT n, CAST(CRC32(CONCAT('i', n)) AS SIGNED) AS r FROM numbers WHERE n <= 2000) AS source;

DROP TEMPORARY TABLE numbers;
