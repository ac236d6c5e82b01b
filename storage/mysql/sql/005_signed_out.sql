-- Tokens that were ended by signing out, until they would have expired.
CREATE TABLE `tandem_signed_out` (
  `session` binary(16) NOT NULL,
  `user_id` bigint unsigned NOT NULL,
  `expires` bigint NOT NULL COMMENT 'Unix seconds',
  PRIMARY KEY (`session`),
  KEY `expires` (`expires`)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
