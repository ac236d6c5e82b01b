-- Ids may be as large as 2^63 - 1; the column was narrower.
ALTER TABLE `tandem_account` MODIFY `user_id` bigint unsigned NOT NULL
