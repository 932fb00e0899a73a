package main

// mutant is a bug to plant: old becomes new in file, and go test of pkg with -run has to fail.
type mutant struct {
	name, file, old, new, pkg, run string
}

// The traces of system calls (TestTrace) would notice most of these too, and are left out: here what
// a user would notice must be noticed.
var mutants = []mutant{
	// Durability: what is acknowledged is on disk.
	{"skipped sync of the log", "segment/sync.go", "\terr = f.Sync()\n\ts.cfg.Handles.Release(&s.file)", "\t_ = f\n\ts.cfg.Handles.Release(&s.file)", "./commitlog", "^TestCrash$"},
	{"acknowledged before the sync", "commitlog/syncer.go", "\tif synced := l.synced.Load(); synced < end {", "\tsynced := l.synced.Load()\n\tl.publishSynced(end)\n\tif synced < end {", "./commitlog", "TestCrash$|TestFailedSync|TestHighWatermark|TestWhatArrives"},
	{"end read after the sync", "commitlog/syncer.go", "\tl.publishSynced(end)\n\treturn false, nil\n", "\tl.publishSynced(l.end.Load())\n\treturn false, nil\n", "./commitlog", "TestWhatArrives|TestCrash$|TestConcurrent"},
	{"only the active segment synced", "commitlog/syncer.go", "for i := list.floor(synced); i < len(list); i++ {", "for i := len(list) - 1; i < len(list); i++ {", "./commitlog", "^TestCrash$"},
	{"directory not synced after a roll", "commitlog/roll.go", "\tl.mu.dirNew = true\n", "", "./commitlog", "^TestCrash$"},
	{"log stays online after a failed sync", "commitlog/syncer.go", "\tcase offline:\n\t\tl.fail(err)\n\tdefault:\n\t\tl.store.janitor.report(l.name, err)\n", "\tdefault:\n\t\t_ = offline\n\t\tl.store.janitor.report(l.name, err)\n", "./commitlog", "TestFailedSync"},
	{"failed sync is tried again", "segment/sync.go", "\tif err != nil {\n\t\treturn s.fail(err)\n\t}", "\tif err != nil {\n\t\treturn err\n\t}", "./segment", "TestFailedSync"},
	{"failed write is not cut back", "segment/append.go", "\terr := f.Truncate(pos)\n\tif err == nil {", "\tvar err error\n\tif err == nil {", "./segment", "TestFailedAppend"},
	{"file replaced without a sync", "vfs/vfs.go", "\tif _, err = f.WriteAt(data, 0); err == nil {\n\t\terr = f.Sync()\n\t}\n", "\t_, err = f.WriteAt(data, 0)\n", "./commitlog", "^TestCrash$"},
	{"file replaced, directory not synced", "vfs/vfs.go", "\treturn fs.SyncDir(dirOf(name))", "\treturn nil", "./commitlog", "^TestCrash$"},
	{"recovery point before the sync", "commitlog/upkeep.go", "\t// The segment that ends at the recovery point may have been sealed since.\n", "\tl.recovery.Store(max(end, l.recovery.Load()))\n", "./commitlog", "TestCrash$|TestTwin"},
	{"checkpoint of many logs is written at its end alone", "commitlog/janitor.go", "\t\t_ = s.points.writeRecovery(s) // the last one says what this does, and whether it can\n", "", "./commitlog", "TestKillInACheckpoint"},
	{"logs with unsynced bytes leave no descriptor to who reads", "vfs/handles.go", "if h.mu.open-h.mu.pins >= h.maxOpen {", "if h.mu.open >= h.maxOpen {", "./commitlog", "TestReadBeside"},
	{"checkpoint without leader epochs", "commitlog/upkeep.go", "\t\tnamed, err = l.writeEpochs()\n", "", "./commitlog", "TestCrash$|TestTwin|TestEpochs"},
	{"start offset told before it is on disk", "commitlog/retention.go", "\tif l.keep {\n\t\tif err := l.store.points.writeStarts(l.store); err != nil {\n\t\t\treturn fmt.Errorf(\"%w: %w\", ErrStorage, err)\n\t\t}\n\t}\n", "", "./commitlog", "TestCrash$|TestTwin"},
	{"clean marker stays while the store is open", "commitlog/store.go", "\t\tif err := s.fs.Remove(name); err != nil {\n\t\t\treturn fmt.Errorf(\"commitlog: %w\", err)\n\t\t}\n", "", "./commitlog", "TestCleanMarker"},
	{"clean marker after a failure", "commitlog/store.go", "if err == nil && (loaded || s.clean) && !s.unclean.Load() {", "if loaded || s.clean {", "./commitlog", "TestFailedSync"},
	{"scrub tells of a segment that was cut", "commitlog/scrub.go", "cuts != c.cuts || cuts%2 > 0 {", "cuts < c.cuts {", "./commitlog", "TestScrubOfACutLog"},
	{"stable offset stays after a start", "commitlog/syncer.go", "\tif l.undone.Load() && l.observer.Load() == nil {", "\tif l.undone.Load() && l.observer.Load() == nil && l.end.Load() < 0 {", "./commitlog", "TestStableOffsetAfterAKill"},
	{"reads go past the bound", "commitlog/read.go", "\treturn seg.PositionOf(upTo)\n", "\treturn seg.Size(), nil\n", "./commitlog", "TestTwin"},

	// Recovery.
	{"recovery does not check checksums", "segment/recover.go", "\tif err := b.VerifyCRC(); err != nil {\n\t\treturn nil, err\n\t}\n\tswitch {\n\tcase h.BaseOffset", "\tswitch {\n\tcase h.BaseOffset", "./segment", "TestCrash|FuzzRecover"},
	{"recovery believes the page cache", "segment/recover.go", "\tif err := f.DropCache(w.pos, 0); err != nil {\n\t\treturn 0, err\n\t}\n", "", "./segment", "TestCrash|TestFailedSync"},
	{"recovery lets offsets fall", "segment/recover.go", "\tcase h.BaseOffset < w.next:\n\t\treturn nil, errors.New(\"offsets do not rise\")\n", "", "./segment", "TestRecoveryCuts"},
	{"hole between segments overlooked", "commitlog/recover.go", "if next < 0 || next == base ||", "if next < 0 || next <= base ||", "./commitlog", "TestCrash$|TestCleanModel"},
	{"recovery makes entries that the next one believes", "segment/recover.go", " && last >= w.known {", " {", "./segment", "TestCutRecovery"},
	{"offset index on disk before the others", "segment/recover.go", "\tx.offsets.Hold(true)\n\tx.times.Hold(true)\n", "", "./segment", "TestCutRecovery"},
	{"offset index keeps what is made anew", "segment/recover.go", "errors.Join(x.offsets.Reset(), x.offsets.Sync())", "x.offsets.Reset()", "./segment", "TestCutRecovery"},
	{"offset index that a killed process emptied comes back", "segment/recover.go", "\tx.offsets.Distrust() // a process that was killed may have emptied it in memory alone\n", "", "./segment", "TestKilledRecovery"},
	{"what a killed process did to indexes is never synced", "segment/recover.go", "s.mu.foreignIndexes = false, true", "s.mu.foreignIndexes = false, false", "./segment", "TestKilledRecovery"},
	{"what a killed process did to indexes at rest is never synced", "segment/scan.go", "s.mu.foreignIndexes = true, true", "s.mu.foreignIndexes = true, false", "./segment", "TestEndsAtLeavesTheIndexesToTheNextSyncAll"},
	{"start after a kill looks for producers below the recovery point", "commitlog/recover.go", "\tif !remade {\n", "\tif !remade && from.Offset < 0 {\n", "./commitlog", "TestStartAfterAKillReadsNoMore"},
	{"a checkpoint takes away the snapshot that the last one's recovery point needs", "commitlog/snapshots.go", "latest || i == above-1 ||", "latest || i == above-1 && off < 0 ||", "./commitlog", "TestStartAfterAKillReadsNoMore"},
	{"start after a kill drops aborted transactions below the recovery point", "segment/recover.go", "x.txns.keepBelow(recoveryPoint)", "x.txns.keepBelow(h.BaseOffset)", "./segment", "TestCutRecovery"},
	{"damage among the aborted transactions below the recovery point is cut off", "index/txn.go", "all = markerOffset(p) >= next", "all = true || markerOffset(p) >= next", "./segment", "TestRecoverTells"},
	{"what a killed process cut is never synced", "segment/scan.go", "s.mu.foreignIndexes = true, true", "s.mu.foreignIndexes = false, true", "./segment", "TestEndsAtLeavesTheSyncToTheNext"},
	{"snapshots of a lost end stay", "commitlog/load.go", "\tgone := l.dropSnapshotsLocked(end+1, maxOffset)\n", "\tgone := l.dropSnapshotsLocked(maxOffset-1, maxOffset)\n", "./commitlog", "TestSnapshotsOfALostEnd"},
	{"epochs of a lost end stay", "commitlog/load.go", "l.epoch.cache.truncateFromEnd(end), ", "l.epoch.cache.truncateFromEnd(maxOffset), ", "./commitlog", "TestEpochsOfALostEnd"},

	// Truncation.
	{"truncation cuts a batch too few", "segment/truncate.go", "b, ok, err := s.locate(f, off, size)", "b, ok, err := s.locate(f, off+1, size)", "./segment", "TestTwin"},
	{"truncation leaves index entries", "segment/truncate.go", "errors.Join(s.index().offsets.TruncateTo(off), ", "errors.Join(", "./segment", "TestTwin"},
	{"truncation leaves the positions in memory", "segment/truncate.go", "\ts.mu.recent.cut(pos)\n", "", "./segment", "TestTwin"},
	{"truncation leaves remembered positions of ends", "commitlog/truncate.go", "\tl.marks.Store(nil)\n\tl.mu.writeBackSeg = nil\n", "\tl.mu.writeBackSeg = nil\n", "./commitlog", "TestTwin"},
	{"truncation leaves leader epochs", "commitlog/truncate.go", "\tl.cutEpochs(off)\n\tif next < off {", "\tif next < off {", "./commitlog", "TestTwin|TestEpochs|TestTruncate"},
	{"truncation leaves the recovery point on disk", "commitlog/truncate.go", "\tif err := l.lowerRecovery(off); err != nil {\n\t\treturn err\n\t}\n", "", "./commitlog", "TestCrash$"},
	{"truncation makes what was decided stable", "commitlog/recover.go", "\t\tif t.lastOffset < end {\n", "\t\tif t.lastOffset < 0 {\n", "./commitlog", "TestStableOffsetAfterATruncation"},
	{"truncation leaves the producers", "commitlog/truncate.go", "\tif err := l.reloadProducersLocked(off); err != nil {\n\t\treturn err\n\t}\n", "", "./commitlog", "TestTwin"},
	{"truncation leaves producer snapshots", "commitlog/truncate.go", "\tgone := l.dropSnapshotsLocked(off+1, maxOffset)\n\tif err := l.removeSnapshots(gone); err != nil {\n\t\treturn err\n\t}\n\tl.endAtLocked(off)", "\tl.endAtLocked(off)", "./commitlog", "TestTwin|TestCrash$|TestOneAnswer"},
	{"truncation is not synced", "commitlog/truncate.go", "\tif err := active.SyncAll(); err != nil {\n\t\treturn err\n\t}\n\treturn l.finishCutLocked()", "\treturn l.finishCutLocked()", "./commitlog", "^TestCrash$"},
	{"high watermark above the end", "commitlog/truncate.go", "{&l.start, &l.starting, &l.hw, &l.recovery,", "{&l.start, &l.starting, &l.recovery,", "./commitlog", "TestTruncationLowers"},

	// Batches and indexes.
	{"produced batch with a wrong checksum", "batch/validate.go", "\tif err := b.VerifyCRC(); err != nil {", "\tif err := b.VerifyCRC(); err != nil && b == nil {", "./batch", "TestRefused|TestValidate|TestHeaders"},
	{"replicated batch with a wrong checksum", "commitlog/append.go", "\t\tif err == nil {\n\t\t\terr = b.VerifyCRC()\n\t\t}\n", "", "./commitlog", "TestReplica"},
	{"index entry for the batch after", "segment/append.go", "\t_ = s.index().offsets.Append(lastOff, pos)\n", "\t_ = s.index().offsets.Append(lastOff-1, pos)\n", "./segment", "TestTwin|TestKafka"},
	{"index entry that passes over records", "segment/scan.go", "h.BaseOffset > e.Offset", "h.BaseOffset > e.Offset+1<<40", "./segment", "TestIndex"},
	{"time index forgets the largest timestamp", "segment/sync.go", "\t\tif err := s.index().times.MaybeAppend(latest.max, latest.maxOff, true); err != nil {\n\t\t\treturn err\n\t\t}\n", "", "./segment", "TestTwin|TestKafka"},
	{"retention passes the high watermark", "commitlog/retention.go", "if l.nextOf(list, n) > hw || ", "if ", "./commitlog", "TestRetention"},

	// Producers and transactions.
	{"duplicates are written again", "commitlog/producer_stage.go", "\t\tif m != nil {\n\t\t\tfound := *m", "\t\tif m != nil && m.lastOffset < 0 {\n\t\t\tfound := *m", "./commitlog", "TestTwin|TestProducers"},
	{"duplicates below a snapshot are forgotten", "commitlog/producer_stage.go", "if m == nil && st.p.mayRepeat(e, h) {", "if m == nil && false && st.p.mayRepeat(e, h) {", "./commitlog", "TestRetriesBehindASnapshot|TestFiveBatches"},
	{"batches before a gap are remembered", "commitlog/producer_window.go", "\t\tif !follows(first.firstSequence(), m.lastSequence) {\n\t\t\treturn\n\t\t}\n", "", "./commitlog", "TestPrepend"},
	{"only the first of five batches is remembered", "commitlog/producers.go", "\tfor i := range e.n {\n\t\tm := &e.batches[i]\n\t\tif m.firstSequence()", "\tfor i := range min(e.n, 1) {\n\t\tm := &e.batches[i]\n\t\tif m.firstSequence()", "./commitlog", "TestTwin|TestProducers"},
	{"sequence numbers do not wrap", "commitlog/producer_window.go", " || sequence == 0 && last == math.MaxInt32", " || sequence == 1 && last == math.MaxInt32", "./commitlog", "TestProducers|TestStage"},
	{"gap in the sequence is taken", "commitlog/producer_window.go", "int64(sequence) == int64(last)+1 ||", "int64(sequence) > int64(last) ||", "./commitlog", "TestProducers|TestTwin"},
	{"older producer epoch is taken", "commitlog/producer_stage.go", "\tif h.ProducerEpoch < e.epoch {\n\t\treturn staleEpoch(e, h)\n\t}\n\tif h.IsTransactional()", "\tif h.IsTransactional()", "./commitlog", "TestProducers|TestTwin"},
	{"duplicate of a failed write succeeds", "commitlog/append.go", "if dup.lastOffset >= l.end.Load() {", "if dup.lastOffset < 0 {", "./commitlog", "TestDuplicate"},
	{"stable offset too high", "commitlog/producers.go", "if len(p.ended) > 0 && (off < 0 || p.ended[0].firstOffset < off) {", "if len(p.ended) > 0 && off >= 0 && p.ended[0].firstOffset < off {", "./commitlog", "TestHighWatermark|TestTwin"},
	{"list of aborted transactions too short", "index/txn.go", "if e.FirstOffset < hi {", "if e.FirstOffset < hi-1 {", "./index", "TestTwin"},
	{"list of aborted transactions ends too early", "index/txn.go", "complete = e.LastStableOffset >= hi", "complete = e.LastStableOffset >= lo", "./commitlog", "TestOneAnswer"},
	{"committed transactions counted as aborted", "commitlog/append.go", "\t\tif !txn.aborted {\n", "\t\tif txn.aborted {\n", "./commitlog", "TestTwin|TestHighWatermark"},

	// The cleaner.
	{"sources go before the swap is durable", "commitlog/swap.go", "\tif err := l.syncNames(); err != nil {\n\t\treturn err\n\t}\n\tfor _, seg := range g.Sources {", "\tfor _, seg := range g.Sources {", "./commitlog", "TestSwapCrash"},
	{"swap into a log that was cut", "commitlog/swap.go", "l.failure.Load() != nil || l.cuts.Load() != cuts {", "l.failure.Load() != nil {", "./commitlog", "TestSwapOfACutLog"},
	{"two passes over one log", "commitlog/cleaner.go", "\tif st.busy {\n\t\tst.again = true //", "\tif st.busy && now < 0 {\n\t\tst.again = true //", "./commitlog", "TestCompactOfALogThatIsDue|TestLogThatRolls"},
	{"a marker by which a value goes may be lost", "commitlog/clean.go", "max(r.limit, l.HighWatermark())", "max(r.limit, l.StableOffset())", "./commitlog", "TestMarkerAboveTheStableOffset"},
	{"cleaner keeps the older value", "compaction/filter.go", "case f.last.get(r.hash) > r.off:", "case f.last.get(r.hash) >= 0 && f.last.get(r.hash) < r.off:", "./compaction", "TestTwin|TestLatest"},
	{"cleaner goes by offsets beyond their batch", "batch/walk.go", "\tif w.f.offsetDelta <= w.seen || w.f.offsetDelta > w.last {", "\tif w.f.offsetDelta <= w.seen {", "./compaction", "TestDamagedBatch"},
	{"cleaner goes by offsets that fall", "batch/walk.go", "\tif w.f.offsetDelta <= w.seen || w.f.offsetDelta > w.last {", "\tif w.f.offsetDelta > w.last {", "./compaction", "TestDamagedBatch"},
	{"tombstones go at once", "compaction/filter.go", "case !r.value && expired:", "case !r.value && (expired || f != nil):", "./compaction", "TestTombstones"},
	{"snapshots of segments that a kill prevented", "commitlog/recover.go", "snapshots && base > from &&", "snapshots && base < from &&", "./commitlog", "TestProducerWhoseLastBatchIsCut"},
	{"last batch of a producer goes", "compaction/filter.go", "mustStay := f.isLastOfProducer(h) || ", "mustStay := ", "./compaction", "TestTwin|TestAborted|TestMarkers"},

	// Above the engine.
	{"produce answered before all replicas have it", "replication/wait.go", "\t\tq, bound = &p.mu.all, p.log.HighWatermark()\n", "\t\tq, bound = &p.mu.all, p.log.EndOffset()\n", "./replication", "."},
	{"a fetch that is used again keeps the request before", "broker/fetch.go", "\tclear(f.seen)\n", "", "./broker", "TestWideFetches"},
	{"a fetch session forgets the name of its topic", "broker/fetch.go", "\t\tcase p.want.Known != \"\":\n", "\t\tcase p.want.Known != \"\" && f.replica:\n", "./broker", "TestSessionOfATopic"},
	{"far deadlines that were cancelled stay", "replication/deadlines.go", "\t\t\tt.sweepLocked()\n", "", "./replication", "TestFarDeadlines"},
	{"an answer of over 2 GiB is taken for given", "broker/call.go", "n > math.MaxInt32 {", "n > math.MaxInt64/2 {", "./broker", "TestAnswerThatIsTooLarge"},
	{"a resource is described as often as it is named", "broker/describe_configs.go", "\t\td.extra += len(entries)\n", "\t\td.extra += 0\n", "./broker", "OverAndOver"},
	{"any number of settings in one request", "controller/configs.go", "if len(recs)+len(clear) > maxRequestRecords {", "if len(as) > maxRequestRecords {", "./controller", "TestAlterationsThatAreTooMuch"},
	{"consume takes silence for the end", "cmd/millrace/consume.go", "; err != nil && ctx.Err() == nil {\n\t\t\t\treturn err\n\t\t\t}\n\t\t\tcontinue\n", "; err != nil {\n\t\t\t\treturn nil\n\t\t\t}\n\t\t\tcontinue\n", "./cmd/millrace", "TestConsumeOf"},
	{"a last offset beyond the index taken", "segment/scan.go", " && last-s.base <= math.MaxInt32", " && last-s.base <= math.MaxInt64", "./segment", "."},
	{"producer told before fetches wake", "replication/partition.go", "\twake(s.woken)\n\tfor _, d := range s.due {\n\t\td.waiter.Resolved(d.slot, err)\n\t}\n", "\tfor _, d := range s.due {\n\t\td.waiter.Resolved(d.slot, err)\n\t}\n\twake(s.woken)\n", "./replication", "."},
	{"too few in-sync replicas", "replication/partition.go", "if all && len(r.Isr) < min(", "if all && len(r.Isr) < min(0, ", "./replication", "."},
	{"coordinator refuses a marker's batch without its record", "broker/coordinator_log.go", "\tif b.Count() == 0 {\n\t\treturn nil // the cleaner", "\tif b.Count() < 0 {\n\t\treturn nil // the cleaner", "./broker", "TestReplayBehindTheCleaner"},
	{"batch that nobody has verified goes into the log", "broker/produce.go", "if err == nil && p.unverified(i) {", "if err != nil && p.unverified(i) {", "./broker", "TestUnverifiedBatch"},
	{"coordinator answers before the commit", "coordinator/runtime.go", "if c := min(r.log.Committed(), r.end); c > r.committed {", "if c := r.end; c > r.committed {", "./coordinator", "TestAnswers|TestRandomCommits"},
	{"a decision committed late is not carried out", "txn/end.go", "if !errors.Is(err, coordinator.ErrTimedOut) {", "if errors.Is(err, coordinator.ErrTimedOut) {", "./txn", "TestSlowDecision"},
	{"late offsets begin a transaction", "commitlog/producer_stage.go", "if h.IsTransactional() && !e.inTransaction", "if origin == FromClient && h.IsTransactional() && !e.inTransaction", "./broker", "TestLateOffsets|TestTransactionalRecords"},
	{"the coordinator's own operation is refused", "coordinator/runtime.go", "r.mu.load >= r.opts.MaxQueue && !op.Own:", "r.mu.load >= r.opts.MaxQueue:", "./coordinator", "TestErrors"},
	{"too much for one append is refused", "coordinator/runtime.go", "if len(g.ops) > 1 || errors.Is(err, ErrTooLarge) {", "if len(g.ops) > 1 {", "./coordinator", "TestTooMuch"},
	{"leader epoch used before it is on disk", "quorum/quorum.go", "\tif err := writeState(q.files, q.dir, q.nodeID, q.epoch, q.kraftVersion); err != nil {\n\t\treturn err\n\t}\n", "", "./quorum", "."},
	{"a power cut in the metadata log's retention takes back one of several renames", "commitlog/truncate.go", "\tif !l.keep {\n\t\tif err := l.store.fs.SyncDir(l.dir); err != nil {\n\t\t\treturn err\n\t\t}\n\t}\n", "", "./quorum", "TestCutInRetention"},
	{"configured voters below the newest snapshot are overlooked", "quorum/quorum.go", "\t\t\th.configured = append(h.configured, v.VoterID)\n", "\t\t\t_ = v\n", "./quorum", "Voters"},
	{"Kafka's marker speaks for the metadata log", "commitlog/load.go", "clean := s.clean && (l.keep || s.points.ours)", "clean := s.clean", "./quorum", "TestTornTail"},
	{"a partition of another log directory is led", "controller/election.go", "here := p.PlacedIn(self, m.opts.DirectoryID)", "here := true", "./broker", "TestPartitionInAnotherDirectory"},
	{"length in a request is believed", "wire/reader.go", "if n < 0 || n > len(r.p)-r.pos {", "if n < 0 || n > len(r.p) {", "./wire", "."},
}
