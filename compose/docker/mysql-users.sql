-- The users of the stack (compose/lib/servers.sh makes the same ones): the agent's and Debezium's have what they need
-- and no more, `app` is the team's own application.
CREATE USER plumbline@'%' IDENTIFIED BY 'plumbline';
GRANT SELECT ON shop.* TO plumbline@'%';
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO plumbline@'%';
CREATE USER debezium@'%' IDENTIFIED BY 'debezium';
GRANT SELECT ON shop.* TO debezium@'%';
GRANT REPLICATION SLAVE, REPLICATION CLIENT, RELOAD, SHOW DATABASES ON *.* TO debezium@'%';
CREATE USER app@'%' IDENTIFIED BY 'app';
GRANT ALL PRIVILEGES ON shop.* TO app@'%';
