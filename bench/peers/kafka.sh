#!/bin/sh
# Apache Kafka as a target: one node, broker and controller in one process, with the settings and
# the JVM options that its own start scripts have.
#
#   PORT=9092 kafka.sh start DIR [KEY=VALUE]...
#
# KEY=VALUE are settings of the broker. The controller listens on PORT + 1. Prints address,
# directory, version and pid, one a line, then stays until SIGTERM. The jars are fetched by Maven
# into the user's cache once; KAFKA_LIBS names a directory that has them.
set -eu

VERSION=4.2.0
LOG4J=2.25.3
HEAP=${KAFKA_HEAP:-1G}
PORT=${PORT:-9092}

fail() {
	echo "kafka.sh: $*" >&2
	exit 1
}

[ $# -ge 2 ] && [ "$1" = start ] || fail "usage: kafka.sh start DIR [KEY=VALUE]..."
command -v java >/dev/null || fail "there is no java here: install a JDK, 17 or newer"
dir=$2
shift 2
mkdir -p "$dir"

# fetch puts the jars into a directory of their own and gives it its name when it is whole.
fetch() {
	command -v mvn >/dev/null || fail "there is no mvn here to fetch Kafka with, and KAFKA_LIBS names no directory"
	echo "kafka.sh: fetching Apache Kafka $VERSION by Maven" >&2
	mkdir -p "$(dirname "$libs")"
	work=$(mktemp -d "$libs.XXXXXX")
	cat >"$work/pom.xml" <<-POM
		<project xmlns="http://maven.apache.org/POM/4.0.0">
		  <modelVersion>4.0.0</modelVersion>
		  <groupId>millrace</groupId><artifactId>bench-kafka</artifactId><version>1</version><packaging>pom</packaging>
		  <dependencies>
		    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$VERSION</version></dependency>
		    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$VERSION</version></dependency>
		    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>$LOG4J</version></dependency>
		    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>$LOG4J</version></dependency>
		  </dependencies>
		</project>
	POM
	mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$work/jars" >&2 ||
		fail "Maven could not fetch it"
	# Another one may have been faster: its copy is as good.
	mv "$work/jars" "$libs" 2>/dev/null || [ -d "$libs" ]
	rm -rf "$work"
}

libs=${KAFKA_LIBS:-${XDG_CACHE_HOME:-$HOME/.cache}/millrace-bench/kafka-$VERSION}
[ -d "$libs" ] || fetch

{
	cat <<-PROPERTIES
		process.roles=broker,controller
		node.id=1
		controller.quorum.bootstrap.servers=127.0.0.1:$((PORT + 1))
		listeners=PLAINTEXT://127.0.0.1:$PORT,CONTROLLER://127.0.0.1:$((PORT + 1))
		advertised.listeners=PLAINTEXT://127.0.0.1:$PORT
		controller.listener.names=CONTROLLER
		listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
		log.dirs=$dir/data
		offsets.topic.replication.factor=1
		transaction.state.log.replication.factor=1
		transaction.state.log.min.isr=1
		share.coordinator.state.topic.replication.factor=1
		share.coordinator.state.topic.min.isr=1
		group.initial.rebalance.delay.ms=0
		log.segment.delete.delay.ms=1000
	PROPERTIES
	for kv in "$@"; do
		echo "$kv"
	done
} >"$dir/server.properties"

cat >"$dir/log4j2.xml" <<-XML
	<Configuration status="WARN">
	  <Appenders><Console name="c" target="SYSTEM_ERR"><PatternLayout pattern="[%d] %p %m (%c)%n"/></Console></Appenders>
	  <Loggers><Root level="INFO"><AppenderRef ref="c"/></Root></Loggers>
	</Configuration>
XML

if [ ! -f "$dir/data/meta.properties" ]; then
	java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$libs/*" kafka.tools.StorageTool format \
		-t "${KAFKA_CLUSTER_ID:-4L6g3nShT-eMCtK--X86sw}" -c "$dir/server.properties" --standalone >&2 || fail "format failed"
fi

echo "address=127.0.0.1:$PORT"
echo "directory=$dir/data"
echo "version=Apache Kafka $VERSION"
echo "pid=$$"
exec java -Xmx"$HEAP" -Xms"$HEAP" -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 \
	-XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true \
	-Dlog4j2.configurationFile="$dir/log4j2.xml" -cp "$libs/*" kafka.Kafka "$dir/server.properties" >&2
