-- The sample: a shop. Keys of different kinds, all common types, about 350,000 rows. The same at every load.
CREATE DATABASE IF NOT EXISTS shop CHARACTER SET utf8mb4;
USE shop;
SET SESSION cte_max_recursion_depth = 1000000, time_zone = '+00:00';

CREATE TABLE customers (
  id int unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  email varchar(120) NOT NULL, name varchar(80) NOT NULL, note text, country char(2) NOT NULL,
  active tinyint(1) NOT NULL DEFAULT 1, logins mediumint NOT NULL DEFAULT 0, created datetime(3) NOT NULL, UNIQUE KEY (email));
CREATE TABLE products (
  sku varchar(20) NOT NULL PRIMARY KEY, title varchar(200) NOT NULL, price decimal(10,2) NOT NULL, weight double, rating float,
  tags set('new','sale','old') NOT NULL, status enum('draft','live','gone') NOT NULL, attributes json, photo blob, released date, gross decimal(12,4) GENERATED ALWAYS AS (price * 1.19) STORED);
CREATE TABLE orders (
  id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, customer_id int unsigned NOT NULL, total decimal(12,2) NOT NULL,
  status varchar(10) NOT NULL, placed timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), flags bit(10) NOT NULL DEFAULT b'0', KEY (customer_id));
CREATE TABLE `order items` (
  order_id bigint unsigned NOT NULL, `line no` smallint NOT NULL, sku varchar(20) NOT NULL, quantity int NOT NULL, PRIMARY KEY (order_id, `line no`));
CREATE TABLE payments (
  id int NOT NULL AUTO_INCREMENT PRIMARY KEY, order_id bigint unsigned NOT NULL, method varchar(10) NOT NULL, amount decimal(12,2) NOT NULL,
  paid_at datetime(6) NOT NULL, raw json);
CREATE TABLE stock (
  warehouse smallint unsigned NOT NULL, sku varchar(20) NOT NULL, amount int NOT NULL, counted_on date NOT NULL, PRIMARY KEY (warehouse, sku));
CREATE TABLE sessions (id binary(16) NOT NULL PRIMARY KEY, customer_id int unsigned, content varbinary(200), seen datetime NOT NULL);
CREATE TABLE prices_by_day (day date NOT NULL, product int NOT NULL, price double NOT NULL, PRIMARY KEY (day, product));
CREATE TABLE audit (at datetime(6) NOT NULL, who varchar(30) NOT NULL, what varchar(60));
CREATE TABLE legacy_codes (code char(5) CHARACTER SET latin1 NOT NULL PRIMARY KEY, label varchar(50) CHARACTER SET latin1, valid year NOT NULL, lasts time(3) NOT NULL);
CREATE TABLE every_type (
  id int NOT NULL PRIMARY KEY, ti tinyint, tu tinyint unsigned, si smallint, mi mediumint unsigned, bi bigint, bu bigint unsigned, de decimal(30,10), fl float, dbl double,
  b1 bit(1), b20 bit(20), yr year, da date, dt datetime(6), ts timestamp(3) NULL, tm time(6), ch char(10), vc varchar(50), tx mediumtext, bn binary(8), vb varbinary(50), bl blob,
  en enum('a','b','it''s'), se set('x','y','z'), js json);

INSERT INTO customers (email, name, note, country, active, logins, created)
  WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
  SELECT CONCAT('c', i, '@example.org'), CONCAT('Customer ', i), IF(i % 3 = 0, NULL, CONCAT(REPEAT('é', i % 9), ' note ', i)), ELT(1 + i % 5, 'DE', 'FR', 'PL', 'US', 'JP'),
    i % 2, i % 100, TIMESTAMP('2025-01-01') + INTERVAL i * 37 SECOND + INTERVAL i % 1000 * 1000 MICROSECOND FROM n;
INSERT INTO products (sku, title, price, weight, rating, tags, status, attributes, photo, released)
  WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
  SELECT CONCAT('SKU-', i), CONCAT('Product ', i, ' – ', ELT(1 + i % 3, 'rot', 'grün', 'blau')), i * 1.25, i / 7, i / 3, ELT(1 + i % 4, '', 'new', 'new,sale', 'old'), ELT(1 + i % 3, 'draft', 'live', 'gone'),
    JSON_OBJECT('n', i, 'price', i * 1.10, 'list', JSON_ARRAY(1, 'a', NULL, TRUE), 'd', i / 7), UNHEX(SHA2(i, 256)), DATE('2020-01-01') + INTERVAL i DAY FROM n;
INSERT INTO orders (customer_id, total, status, placed, flags)
  WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
  SELECT 1 + i * 7 % 40000, i * 0.37, ELT(1 + i % 4, 'new', 'paid', 'sent', 'back'), TIMESTAMP('2025-06-01') + INTERVAL i * 11 SECOND, i % 1024 FROM n;
INSERT INTO `order items` SELECT id, 1, CONCAT('SKU-', 1 + id % 3000), 1 + id % 9 FROM orders;
INSERT INTO `order items` SELECT id, 2, CONCAT('SKU-', 1 + id * 7 % 3000), 1 + id % 4 FROM orders WHERE id % 2 = 0;
INSERT INTO payments (order_id, method, amount, paid_at, raw)
  SELECT id, ELT(1 + id % 3, 'card', 'cash', 'bank'), total, placed + INTERVAL 3 MINUTE, JSON_OBJECT('id', id, 'ok', id % 2 = 0) FROM orders WHERE id % 4 = 0;
INSERT INTO stock SELECT w.n, sku, CRC32(CONCAT(sku, w.n)) % 1000, '2026-01-01' FROM products, (SELECT 1 n UNION SELECT 2 UNION SELECT 3) w;
INSERT INTO sessions SELECT UNHEX(SUBSTR(SHA2(CONCAT('s', id), 256), 1, 32)), id, UNHEX(SHA2(id, 256)), '2026-03-01 10:00:00' + INTERVAL id SECOND FROM customers WHERE id <= 10000;
INSERT INTO prices_by_day
  WITH RECURSIVE n AS (SELECT 0 i UNION ALL SELECT i + 1 FROM n WHERE i < 9999) SELECT DATE('2025-01-01') + INTERVAL i DIV 100 DAY, i % 100, i / 3 FROM n;
INSERT INTO audit
  WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 3000) SELECT TIMESTAMP('2026-01-01') + INTERVAL i * 1001 MICROSECOND, CONCAT('u', i % 7), CONCAT('did ', i % 50) FROM n;
INSERT INTO legacy_codes VALUES ('A1', 'Straße €', 2020, '-12:30:00.500'), ('b2', 'naïve', 1999, '838:59:59.000'), ('C3', NULL, 2026, '00:00:00.001');
INSERT INTO every_type
  WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
  SELECT i, i % 256 - 128, i % 256, i - 500, i * 1000, i * 9007199254740993, i * 18000000000000000, i / 7, i / 3, i / 9, i % 2, i * 1000, 1901 + i % 250, DATE('2000-02-28') + INTERVAL i DAY,
    TIMESTAMP('1999-12-31 23:59:59') + INTERVAL i * 1000001 MICROSECOND, TIMESTAMP('2024-03-31') + INTERVAL i MINUTE, SEC_TO_TIME(i * 97 - 48500), CONCAT('c', i), CONCAT('v ', i, ' '), REPEAT(CONCAT(i, 'ß\\\t\n'), i % 5),
    UNHEX(LPAD(HEX(i), 16, '0')), UNHEX(SHA2(i, 224)), IF(i % 5 = 0, NULL, UNHEX(SHA2(i, 512))), ELT(1 + i % 3, 'a', 'b', 'it''s'), ELT(1 + i % 4, '', 'x', 'x,z', 'y'), JSON_OBJECT('i', i, 'f', i / 8, 's', CONCAT('"', i)) FROM n;
