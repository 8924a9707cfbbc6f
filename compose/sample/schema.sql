-- A small shop with keys of every common kind. The data of data.sql are the same on every load.

SET NAMES utf8mb4;
SET time_zone = '+00:00';

CREATE TABLE customers (
  id            INT NOT NULL AUTO_INCREMENT,
  email         VARCHAR(190) NOT NULL,
  name          VARCHAR(120) NOT NULL,
  city          VARCHAR(80) CHARACTER SET latin1 COLLATE latin1_swedish_ci NULL,
  country       CHAR(2) NOT NULL,
  newsletter    TINYINT(1) NOT NULL DEFAULT 0,
  credit_limit  DECIMAL(12,2) NOT NULL DEFAULT 0,
  birthday      DATE NULL,
  created_at    DATETIME(3) NOT NULL,
  notes         TEXT NULL,
  PRIMARY KEY (id),
  UNIQUE KEY customers_email (email)
) COMMENT 'key: an integer that counts up';

CREATE TABLE products (
  sku             VARCHAR(32) NOT NULL,
  name            VARCHAR(160) NOT NULL,
  price           DECIMAL(10,2) NOT NULL,
  vat_percent     DECIMAL(4,2) NOT NULL DEFAULT 19.00,
  price_with_vat  DECIMAL(12,2) GENERATED ALWAYS AS (ROUND(price * (1 + vat_percent / 100), 2)) STORED,
  weight_kg       FLOAT NULL,
  labels          SET('new','sale','fragile','bulky','organic') NOT NULL DEFAULT '',
  attributes      JSON NULL,
  changed_at      TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  PRIMARY KEY (sku)
) COMMENT 'key: a text';

CREATE TABLE orders (
  id           BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  customer_id  INT NOT NULL,
  status       ENUM('open','paid','packed','shipped','returned','cancelled') NOT NULL DEFAULT 'open',
  total        DECIMAL(12,2) NOT NULL DEFAULT 0,
  currency     CHAR(3) NOT NULL DEFAULT 'EUR',
  placed_at    DATETIME(6) NOT NULL,
  shipped_on   DATE NULL,
  remark       VARCHAR(200) NULL,
  PRIMARY KEY (id),
  KEY orders_customer (customer_id),
  CONSTRAINT orders_customer FOREIGN KEY (customer_id) REFERENCES customers (id)
) COMMENT 'key: an unsigned big integer';

CREATE TABLE `order items` (
  order_id    BIGINT UNSIGNED NOT NULL,
  line        SMALLINT UNSIGNED NOT NULL,
  sku         VARCHAR(32) NOT NULL,
  quantity    INT UNSIGNED NOT NULL,
  unit_price  DECIMAL(10,2) NOT NULL,
  `line total` DECIMAL(14,2) GENERATED ALWAYS AS (quantity * unit_price) VIRTUAL,
  PRIMARY KEY (order_id, line)
) COMMENT 'key: two columns; names that need quotes';

CREATE TABLE payments (
  id         BINARY(16) NOT NULL,
  order_id   BIGINT UNSIGNED NOT NULL,
  method     ENUM('card','transfer','invoice','voucher') NOT NULL,
  amount     DECIMAL(12,2) NOT NULL,
  paid_at    DATETIME(6) NOT NULL,
  reference  VARCHAR(64) CHARACTER SET ascii NULL,
  PRIMARY KEY (id)
) COMMENT 'key: a UUID in sixteen bytes';

CREATE TABLE stock (
  warehouse   CHAR(3) NOT NULL,
  sku         VARCHAR(32) NOT NULL,
  quantity    INT NOT NULL,
  reserved    INT NOT NULL DEFAULT 0,
  counted_on  DATE NULL,
  PRIMARY KEY (warehouse, sku)
) COMMENT 'key: two texts';

CREATE TABLE daily_sales (
  day      DATE NOT NULL,
  store    INT NOT NULL,
  orders   INT UNSIGNED NOT NULL,
  revenue  DECIMAL(14,2) NOT NULL,
  PRIMARY KEY (day, store)
) COMMENT 'key: a date and an integer';

CREATE TABLE price_bands (
  from_amount  DECIMAL(12,2) NOT NULL,
  discount     DECIMAL(5,2) NOT NULL,
  label        VARCHAR(40) NOT NULL,
  PRIMARY KEY (from_amount)
) COMMENT 'key: a decimal';

CREATE TABLE sessions (
  token       CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  customer_id INT NULL,
  started_at  DATETIME(3) NOT NULL,
  seen_at     DATETIME(3) NOT NULL,
  cart        JSON NULL,
  PRIMARY KEY (token)
) COMMENT 'key: a long text compared byte by byte';

CREATE TABLE audit (
  at      DATETIME(6) NOT NULL,
  actor   VARCHAR(60) NOT NULL,
  action  VARCHAR(40) NOT NULL,
  detail  TEXT NULL
) COMMENT 'no key at all, and equal rows';

CREATE TABLE instruments (
  id            MEDIUMINT UNSIGNED NOT NULL AUTO_INCREMENT,
  tiny          TINYINT NULL,
  tiny_unsigned TINYINT UNSIGNED NULL,
  small         SMALLINT NULL,
  medium        MEDIUMINT NULL,
  big           BIGINT NULL,
  big_unsigned  BIGINT UNSIGNED NULL,
  exact         DECIMAL(30,10) NULL,
  single        FLOAT NULL,
  `double`      DOUBLE NULL,
  flag          BIT(1) NULL,
  bits          BIT(10) NULL,
  fixed_text    CHAR(10) NULL,
  text_short    VARCHAR(200) NULL,
  text_long     MEDIUMTEXT NULL,
  text_latin1   VARCHAR(60) CHARACTER SET latin1 NULL,
  fixed_bytes   BINARY(8) NULL,
  bytes         VARBINARY(60) NULL,
  content       BLOB NULL,
  kind          ENUM('thermometer','barometer','größe') NULL,
  features      SET('a','b','c','d') NULL,
  document      JSON NULL,
  on_day        DATE NULL,
  at_time       TIME NULL,
  at_time6      TIME(6) NULL,
  in_year       YEAR NULL,
  local_time    DATETIME NULL,
  local_time3   DATETIME(3) NULL,
  moment        TIMESTAMP NULL,
  moment6       TIMESTAMP(6) NULL,
  PRIMARY KEY (id)
) COMMENT 'all the common types, with their edges and NULL';
