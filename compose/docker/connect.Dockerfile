# Kafka Connect with Debezium's connector for MySQL and its JDBC sink: the same archives as compose/lib/services-install.sh fetches.
ARG KAFKA_VERSION=4.2.0
ARG JAVA_MAJOR=17

FROM maven:3-eclipse-temurin-${JAVA_MAJOR} AS plugins
ARG MAVEN_DEPENDENCY_PLUGIN_VERSION=3.8.1
ARG DEBEZIUM_MYSQL_VERSION=3.6.1.Final
ARG DEBEZIUM_JDBC_VERSION=3.6.0.Final
RUN for plugin in debezium-connector-mysql:$DEBEZIUM_MYSQL_VERSION debezium-connector-jdbc:$DEBEZIUM_JDBC_VERSION; do \
        mvn -B -q org.apache.maven.plugins:maven-dependency-plugin:$MAVEN_DEPENDENCY_PLUGIN_VERSION:unpack \
            -Dartifact=io.debezium:$plugin:zip:plugin -DoutputDirectory=/plugins || exit 1; \
    done

FROM apache/kafka:${KAFKA_VERSION}
COPY --from=plugins /plugins /opt/plugins
COPY connect.properties /opt/connect.properties
EXPOSE 8083
CMD ["/opt/kafka/bin/connect-distributed.sh", "/opt/connect.properties"]
